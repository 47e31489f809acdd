"""Summary of a search for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial
from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from optuna_llmbo.space.prompt import format_value
from optuna_llmbo.study.outcome import default_trial
from optuna_llmbo.study.progress import format_metric
from optuna_llmbo.study.progress import Goal
from optuna_llmbo.study.progress import progress_of
from optuna_llmbo.study.trial_facts import trial_facts
from optuna_llmbo.study.trust import trust_course


_LOSSES = ("loss", "eval_loss")
"""Metrics that the base model's loss is compared with."""


def summary(
    study: optuna.Study, goals: Sequence[Goal], base_loss: float | None
) -> list[RenderableType]:
    """A table of the default configuration and the best one, or the Pareto front; then their
    hyperparameters, the number of trials by outcome, and whether knowledge has been overruled.

    Args:
        study: the study.
        goals: metrics that it optimizes.
        base_loss: validation loss of the base model, nats per response token; None if unknown.
    """
    trials = study.get_trials(deepcopy=False)
    now, default = progress_of(study), default_trial(trials)
    aims = ", ".join(f"{goal.heading} ({goal.direction})" for goal in goals)
    rows: list[tuple[str, FrozenTrial]] = []
    if default is not None:
        rows.append((f"default (#{default.number})", default))
    for one in now.best:
        name = "best found" if len(goals) == 1 else "Pareto front"
        rows.append((f"{name} (#{one.number})", one))
    counts = ", ".join(f"{n} {outcome}" for outcome, n in now.counts.items())
    return [
        Text(f"\nStudy {study.study_name!r}: {aims}", style="bold"),
        _one(rows, goals[0], base_loss, default) if len(goals) == 1 else _several(rows, goals),
        *(
            Text(f"{name}: {', '.join(f'{k}={format_value(v)}' for k, v in one.params.items())}")
            for name, one in rows
        ),
        Text(f"Trials: {counts}"),
        *map(Text, _overruled(trials)),
    ]


def _overruled(trials: Sequence[FrozenTrial]) -> list[str]:
    """The line that says so, if what was expected before any trial has been overruled."""
    course = trust_course([trial_facts(trial) for trial in trials])
    if course is None or course.overruled_from is None:
        return []
    return [
        f"Knowledge: overruled from trial #{course.overruled_from} on (trusted "
        f"{course.latest:.2f}): the trials are better explained without it. optuna-llmbo report "
        "shows where it expects good values."
    ]


def _one(
    rows: Sequence[tuple[str, FrozenTrial]],
    goal: Goal,
    base_loss: float | None,
    default: FrozenTrial | None,
) -> Table:
    """Values and their gains over the base model's loss and the default's value."""
    others = {"default": default.values[0]} if default is not None else {}
    if goal.name in _LOSSES and base_loss is not None:
        others = {"base": base_loss} | others
    table = _table("", goal.name, *(f"gain over {name}" for name in others))
    if "base" in others:
        table.add_row("base model", format_metric(others["base"]))
    for name, trial in rows:
        gains = [f"{goal.better(trial.values[0], other):+.4f}" for other in others.values()]
        table.add_row(name, format_metric(trial.values[0]), *gains)
    return table


def _several(rows: Sequence[tuple[str, FrozenTrial]], goals: Sequence[Goal]) -> Table:
    table = _table("", *(goal.name for goal in goals))
    for name, trial in rows:
        table.add_row(name, *map(format_metric, trial.values))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    return table
