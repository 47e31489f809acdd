"""Trials as the figures need them: a state, a number, a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_llmbo.study.history import sign_of
from optuna_llmbo.study.outcome import Outcome
from optuna_llmbo.study.outcome import outcome_of


@dataclass(frozen=True)
class Objective:
    """What a study is about."""

    name: str
    """As the study's metric names say, else "objective value"."""
    sign: float
    """Which values are multiplied by so that larger is better: -1 where the study minimizes."""

    @property
    def direction(self) -> str:
        """Which values are good: "lower is better" or "higher is better"."""
        return "lower is better" if self.sign < 0 else "higher is better"


@dataclass(frozen=True)
class Tried:
    """A trial that has begun."""

    number: int
    state: Outcome
    value: float | None
    """Of a pruned trial the last that it reported; None for one without a value. May be
    infinite."""
    params: Mapping[str, Any]
    path: str | None
    """Who chose it: see `provenance.Path`; None if it is not written down."""


def objective_of(study: Study) -> Objective:
    """Of a study with one objective."""
    names = study.metric_names
    return Objective(names[0] if names else "objective value", sign_of(study.direction))


def tried_of(trial: FrozenTrial) -> Tried:
    """A trial of one objective that has begun."""
    value = trial.value
    if value is None and trial.last_step is not None:
        value = trial.intermediate_values[trial.last_step]
    path = trial.user_attrs.get("llmbo:path")
    return Tried(trial.number, outcome_of(trial), value, dict(trial.params), path)
