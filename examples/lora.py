"""LoRA hyperparameters for a real language model on real data, from Python.

The embedded SmolLM2-135M-Instruct learns to write docstrings for the functions of Python's
standard library. `optuna-llmbo tune` does the same from the command line.

    python examples/lora.py --trials 12
"""

from __future__ import annotations

import argparse

import optuna

from optuna_llmbo import LLMBOSampler
from optuna_llmbo import LoRAObjective


def main() -> None:
    """Run the study and print what it found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--train", default="stdlib-docstrings")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--proxy", type=float, default=0.03)
    parser.add_argument("--max-length", type=int, default=96)
    parser.add_argument("--validation", type=int, default=32)
    parser.add_argument("--storage", default=None, help="such as sqlite:///lora.db")
    parser.add_argument("--llm", default="auto", help="as LLMBOSampler(llm=...)")
    arguments = parser.parse_args()

    objective = LoRAObjective(
        arguments.model,
        arguments.train,
        proxy=arguments.proxy,
        max_length=arguments.max_length,
        validation=arguments.validation,
    )
    study = optuna.create_study(
        direction="minimize",
        sampler=LLMBOSampler(llm=arguments.llm, seed=0),
        pruner=optuna.pruners.MedianPruner(),
        storage=arguments.storage,
    )
    study.enqueue_trial(objective.default_params)
    study.optimize(objective, n_trials=arguments.trials)

    print(f"base model {objective.base_loss:.4f} nats per response token")
    print(f"default    {study.trials[0].value:.4f} {study.trials[0].params}")
    print(f"best       {study.best_value:.4f} {study.best_params}")


if __name__ == "__main__":
    main()
