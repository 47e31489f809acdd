"""Trials of other studies as observations beside this study's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_llmbo.errors import InputError
from optuna_llmbo.history import read_history
from optuna_llmbo.history import sign_of
from optuna_llmbo.space import SearchSpace


@dataclass(frozen=True)
class SourceStudy:
    """Another study's trials, as they were when it was handed over."""

    name: str
    direction: StudyDirection
    trials: tuple[FrozenTrial, ...]

    @classmethod
    def of(cls, study: Study) -> SourceStudy:
        """Read a study once; later trials of it are not seen.

        Raises:
            InputError: if it is no study, or one with several objectives.
        """
        if not isinstance(study, Study):
            raise InputError(
                "source_studies must be a sequence of optuna studies; "
                f"got {type(study).__name__}. Load one with optuna.load_study."
            )
        if len(study.directions) > 1:
            raise InputError(
                f"the source study {study.study_name!r} has {len(study.directions)} objectives; "
                "expected one."
            )
        trials = tuple(study.get_trials(deepcopy=True))
        return cls(study.study_name, study.direction, trials)


@dataclass(frozen=True)
class Source:
    """What another study observed in this study's search space."""

    cube: np.ndarray
    """(n, n names) points in [0, 1]."""
    targets: np.ndarray
    """(n,) float64, larger is better, in the other study's units."""


def read_source(study: SourceStudy, space: SearchSpace) -> Source:
    """Complete trials that have all of the space's parameters, with values inside their ranges."""
    usable = [
        trial
        for trial in study.trials
        if trial.state == TrialState.COMPLETE
        and (configuration := space.restrict(trial.params)) is not None
        and space.contains(configuration)
    ]
    history = read_history(usable, study.direction, space, current=-1)
    return Source(space.to_unit(history.configurations), history.targets)


def best_value(studies: Sequence[SourceStudy], name: str) -> Any | None:
    """A parameter's value in the best trial of the first study that has it; None if none has."""
    for study in studies:
        sign = sign_of(study.direction)
        having = [t for t in study.trials if t.state == TrialState.COMPLETE and name in t.params]
        if having:
            return max(having, key=lambda t: sign * (t.value or 0.0)).params[name]
    return None


def best_configurations(sources: Sequence[Source], n: int) -> list[np.ndarray]:
    """The n best points of each source, the best of all sources first."""
    ranked = [source.cube[np.argsort(-source.targets, kind="stable")[:n]] for source in sources]
    return [cube[i] for i in range(n) for cube in ranked if i < len(cube)]
