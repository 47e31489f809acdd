"""Trials of other studies as observations beside this study's own.

Shapes: n observed by the other study, d parameters, q objectives.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_llmbo.errors import InputError
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.study.history import best_first
from optuna_llmbo.study.history import read_history
from optuna_llmbo.study.history import sign_of
from optuna_llmbo.study.outcome import complete
from optuna_llmbo.study.outcome import outcome_of


@dataclass(frozen=True)
class SourceStudy:
    """A snapshot of another study's trials."""

    name: str
    directions: tuple[StudyDirection, ...]
    trials: tuple[FrozenTrial, ...]

    @classmethod
    def of(cls, study: Study) -> SourceStudy:
        """Read a study once; its later trials are not seen.

        Raises:
            InputError: if it is not a study.
        """
        if not isinstance(study, Study):
            raise InputError(
                "source_studies must be a sequence of optuna studies; "
                f"got {type(study).__name__}. Load one with optuna.load_study."
            )
        trials = tuple(study.get_trials(deepcopy=True))
        return cls(study.study_name, tuple(study.directions), trials)

    def is_of(self, name: str, trials: Sequence[FrozenTrial]) -> bool:
        """Whether this is an earlier state of a study, or of a copy of it."""
        begun = [trial.datetime_start for trial in self.trials]
        return self.name == name and begun == [t.datetime_start for t in trials[: len(begun)]]

    @property
    def complete(self) -> list[FrozenTrial]:
        """The trials that have a final value: only these teach."""
        return [trial for trial in self.trials if trial.state == TrialState.COMPLETE]


def read_studies(studies: Sequence[Study]) -> tuple[SourceStudy, ...]:
    """Read the studies that a user gives, each once.

    Raises:
        InputError: if it is no sequence of studies, or one is given twice.
    """
    if isinstance(studies, Study) or not isinstance(studies, Iterable):
        raise InputError(
            f"source_studies must be a sequence of optuna studies; got {type(studies).__name__}. "
            "Put a single one in a list."
        )
    found: list[SourceStudy] = []
    for study in map(SourceStudy.of, studies):
        if any(study.is_of(one.name, one.trials) for one in found):
            raise InputError(
                f"source_studies has the study {study.name!r} twice: it would count double. Leave "
                "one of them out."
            )
        found.append(study)
    return tuple(found)


@dataclass(frozen=True)
class SourceObservations:
    """What another study observed in this study's search space."""

    points: np.ndarray
    """(n, d) points in [0, 1]."""
    targets: np.ndarray
    """(n, k) float64, larger is better, in the other study's units."""
    feasible: np.ndarray
    """(n,) bool: whether each breaks no constraint; only these are tried first."""


def check_objectives_of(study: SourceStudy, n_objectives: int) -> None:
    """Raises InputError if another study has another number of objectives than this one."""
    if len(study.directions) != n_objectives:
        raise InputError(
            f"the source study {study.name!r} has {len(study.directions)} objectives, this study "
            f"{n_objectives}: expected the same number."
        )


def read_source(study: SourceStudy, space: SearchSpace, n_objectives: int) -> SourceObservations:
    """Read the complete trials with the space's shared parameters and values in their ranges.

    Raises:
        InputError: if that study has another number of objectives.
    """
    check_objectives_of(study, n_objectives)
    usable = [
        trial
        for trial in study.complete
        if (configuration := space.restrict(trial.params)) is not None
        and space.contains(configuration)
    ]
    history = read_history(usable, study.directions, space, current=-1)
    feasible = np.array([outcome_of(trial) == "complete" for trial in usable], dtype=bool)
    return SourceObservations(space.to_unit(history.configurations), history.targets, feasible)


def best_value(studies: Sequence[SourceStudy], name: str) -> Any | None:
    """A parameter's value in the best trial of the first study with a feasible trial that has it.

    None if no study has one.
    """
    for study in studies:
        signs = [sign_of(direction) for direction in study.directions]
        having = [trial for trial in complete(study.trials) if name in trial.params]
        if having:
            targets = np.array([t.values for t in having]) * signs
            return having[best_first(targets)[0]].params[name]
    return None


def best_configurations(sources: Sequence[SourceObservations], n: int) -> list[np.ndarray]:
    """The n best feasible points of each source, the best of all sources first."""
    ranked = []
    for source in sources:
        order = best_first(source.targets[source.feasible])[:n]
        ranked.append(source.points[source.feasible][order])
    return [points[i] for i in range(n) for points in ranked if i < len(points)]
