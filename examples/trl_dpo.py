"""LoRA hyperparameters and beta around a file of TRL's, for preference tuning.

The embedded SmolLM2-135M-Instruct learns to prefer a function's own docstring to another
function's, with TRL's DPOTrainer, as `dpo.yaml` says. What is searched starts from the file's own
values, and both are measured in the end on pairs that no trial has read: the loss of DPO with the
file's beta, whatever beta they are trained with, and how often the right docstring is preferred.
`optuna-llmbo tune --trl dpo.yaml` does the same from the command line.

    pip install optuna-llmbo[trl]
    python examples/trl_dpo.py --trials 4
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
import random

import optuna

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.lora.stdlib_docstrings import stdlib_docstrings
from optuna_llmbo.trainer import TRLObjective


def write_data(folder: Path, n: int, stdlib: Path | None) -> None:
    """Write short functions of Python's standard library for TRL, each with its own docstring and
    another one's."""
    pairs = [pair for pair in stdlib_docstrings(stdlib) if len(pair[0]) + len(pair[1]) < 150]
    random.Random(0).shuffle(pairs)
    pairs = pairs[:n]
    others = [*pairs[1:], pairs[0]]
    rows = [
        {"prompt": f"{code}\n\nDocstring:", "chosen": f" {text}", "rejected": f" {other}"}
        for (code, text), (_, other) in zip(pairs, others, strict=True)
        if text != other
    ]
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "train.jsonl").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Run the study and print what it found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", type=Path, default=Path(__file__).parent / "dpo.yaml")
    parser.add_argument("--data", type=Path, default=Path("dpo-data"), help="made if missing")
    parser.add_argument("--rows", type=int, default=160)
    parser.add_argument("--stdlib", type=Path, default=None, help="default: this Python's")
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--proxy", type=int, default=20, help="rows that a trial trains on")
    parser.add_argument("--validation", type=int, default=16)
    parser.add_argument("--test", type=int, default=24)
    arguments = parser.parse_args()

    if not arguments.data.exists():
        write_data(arguments.data, arguments.rows, arguments.stdlib)
    objective = TRLObjective(
        arguments.file,
        proxy=arguments.proxy,
        validation=arguments.validation,
        test=arguments.test,
        reports=1,
    )
    study = optuna.create_study(sampler=LLMBOSampler(seed=0), pruner=optuna.pruners.MedianPruner())
    default = objective.default_params or {}
    study.enqueue_trial(default)
    study.optimize(objective, n_trials=arguments.trials)

    print(f"validation: base {objective.base_loss:.4f}")
    test = objective.prepare().rows.test
    control, best = study.trials[0], study.best_trial
    for name, trial in (("default", control), ("best", best)):
        with objective.trained(objective.configuration_of(trial), validation=test) as trained:
            right = trained.metrics["eval_rewards/accuracies"]
        print(
            f"{name}: validation {trial.value:.4f}, test {trained.value:.4f}, right on test "
            f"{right:.0%} {trial.params}"
        )


if __name__ == "__main__":
    main()
