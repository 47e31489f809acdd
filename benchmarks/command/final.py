"""The control and the best configuration, trained on all data and measured on data held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna

from benchmarks.command.killing import trials
from benchmarks.command.tool import read_settings
from benchmarks.command.tool import RECIPE
from benchmarks.command.tool import Tool
from optuna_llmbo.study.trial_attributes import IS_DEFAULT
from optuna_llmbo.study.trial_attributes import TRIAL_CONFIG


HELD_OUT = {
    "eval_dataset": "test",
    "eval_strategy": "no",
    "do_eval": True,
}


def best_of(tool: Tool) -> optuna.trial.FrozenTrial:
    """The complete trial with the least validation loss."""
    complete = [t for t in trials(tool) if t.state is optuna.trial.TrialState.COMPLETE]
    return min(complete, key=lambda trial: float(trial.value or 0.0))


def default_of(tool: Tool) -> optuna.trial.FrozenTrial:
    """The control."""
    return next(
        t
        for t in trials(tool)
        if t.user_attrs.get(IS_DEFAULT) and t.state is optuna.trial.TrialState.COMPLETE
    )


def measure(tool: Tool, n_seeds: int) -> dict[str, Any]:
    """The test loss of the model as it is, and of both configurations trained on all data.

    Args:
        tool: the tool.
        n_seeds: trainings of each configuration, with another order of the data and other initial
            weights.

    Returns:
        "base": the loss; "default" and "best": losses by seed.
    """
    base = read_settings(RECIPE / "train.yaml") | HELD_OUT | {"do_train": False}
    found: dict[str, Any] = {"base": tool.train("base", base)["eval_loss"]}
    configs = {
        "default": RECIPE / "train.yaml",
        "best": Path(best_of(tool).user_attrs[TRIAL_CONFIG]),
    }
    losses: dict[str, list[float]] = {name: [] for name in configs}
    for seed in range(n_seeds):
        for name, path in configs.items():
            settings = read_settings(path) | HELD_OUT | {"seed": seed}
            settings.pop("max_samples")
            settings.pop("eval_steps")
            losses[name].append(tool.train(f"{name}-{seed}", settings)["eval_loss"])
    return found | losses
