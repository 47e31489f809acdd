"""How far a study has come: how its trials ended, and which are the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Protocol

import optuna
from optuna.trial import FrozenTrial

from optuna_llmbo.study.outcome import count
from optuna_llmbo.study.outcome import Outcome
from optuna_llmbo.study.outcome import outcome_of
from optuna_llmbo.study.trial_attributes import SECONDS


_SAYING: tuple[Outcome, ...] = ("complete", "pruned", "infeasible")


class MetricLike(Protocol):
    """The two fields of a metric that a goal is made of."""

    @property
    def name(self) -> str:
        """The metric's name."""

    @property
    def direction(self) -> str:
        """ "minimize" or "maximize"."""


@dataclass(frozen=True)
class Goal:
    """One objective of a search."""

    name: str
    direction: str
    """ "minimize" or "maximize"."""
    title: str = field(default="", compare=False)
    """What it is, with its unit; empty: its name says it."""

    @property
    def heading(self) -> str:
        """Its title, or its name where it has none."""
        return self.title or self.name

    def better(self, value: float, other: float) -> float:
        """How much better a value is than another; negative if it is worse."""
        return other - value if self.direction == "minimize" else value - other


def goals_of(metrics: Sequence[MetricLike]) -> tuple[Goal, ...]:
    """The goals of a search on some metrics."""
    return tuple(Goal(metric.name, metric.direction) for metric in metrics)


@dataclass(frozen=True)
class Progress:
    """A snapshot; other workers may change it."""

    counts: dict[Outcome, int]
    """Finished trials by outcome."""
    best: tuple[FrozenTrial, ...]
    """The best feasible trial; with several objectives the Pareto front, by its first value."""

    @property
    def n_finished(self) -> int:
        """Number of finished trials, without those that failed or were interrupted."""
        return sum(self.counts[outcome] for outcome in _SAYING)


def progress_of(study: optuna.Study) -> Progress:
    """Read how far a study has come."""
    ended = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
    best = sorted(study.best_trials, key=lambda trial: (trial.values[0], trial.number))
    if len(study.directions) == 1:
        best = best[:1]
    return Progress(count(map(outcome_of, ended)), tuple(best))


def seconds_of(trial: FrozenTrial) -> float:
    """A finished trial's seconds: as it records itself, else between its start and its end."""
    duration = trial.duration.total_seconds() if trial.duration else 0.0
    return float(trial.user_attrs.get(SECONDS, duration))


def format_metric(value: float) -> str:
    """Write a metric for people: four decimals, none for large numbers."""
    return f"{value:.4f}" if abs(value) < 10_000 else f"{value:.0f}"
