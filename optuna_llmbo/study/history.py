"""Optuna trials -> History: what has been observed, what is running, what did not work."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
import math

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_llmbo.space.search_space import Configuration
from optuna_llmbo.space.search_space import Key
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.study import compat
from optuna_llmbo.study import published
from optuna_llmbo.study.trial_attributes import INFEASIBLE
from optuna_llmbo.study.trial_attributes import INTERRUPTED


@dataclass(frozen=True)
class History:
    """The trials of a study, as far as they concern one search space."""

    configurations: tuple[Configuration, ...]
    """The n observed ones: complete trials, and pruned ones with a value."""
    targets: np.ndarray
    """(n, k) float64, a column an objective, larger is better; may be infinite. Pruned trials: an
    estimate, see below."""
    gaps: np.ndarray
    """(n,) float64: 1 - the share of its steps that a trial made; 0 for complete ones."""
    seconds: np.ndarray
    """(n,) float64: how long a complete trial took, nan for pruned ones."""
    constraints: dict[str, np.ndarray]
    """For each constraint (n,) float64, feasible at or below 0, nan where it was not set."""
    infeasible: tuple[Configuration, ...]
    """Failed trials, and pruned ones without a value: tried, no score."""
    pending: tuple[Configuration, ...]
    """Running trials of this and other workers, as far as they have suggested or published it."""
    seen: frozenset[Key]
    """The keys of all of these, and of trials that were interrupted."""

    @property
    def n_observed(self) -> int:
        """How many configurations have a target."""
        return len(self.configurations)

    def first(self, n: int) -> History:
        """As if only the first n of the observed trials had been made."""
        return replace(
            self,
            configurations=self.configurations[:n],
            targets=self.targets[:n],
            gaps=self.gaps[:n],
            seconds=self.seconds[:n],
            constraints={name: values[:n] for name, values in self.constraints.items()},
        )


def sign_of(direction: StudyDirection) -> float:
    """What an objective's values are multiplied by so that larger is better."""
    return -1.0 if direction == StudyDirection.MINIMIZE else 1.0


def best_first(targets: np.ndarray) -> np.ndarray:
    """The order of (n, k) targets, the best first; with several objectives, those that fewer
    others dominate."""
    if targets.shape[1] == 1:
        return np.argsort(-targets[:, 0], kind="stable")
    dominating = [
        int(((targets >= row).all(axis=1) & (targets > row).any(axis=1)).sum()) for row in targets
    ]
    return np.argsort(dominating, kind="stable")


def read_history(
    trials: Sequence[FrozenTrial],
    directions: Sequence[StudyDirection],
    space: SearchSpace,
    current: int,
) -> History:
    """Sort the trials of a study by what they tell about `space`.

    Trials that lack one of the space's shared parameters are left out. A pruned trial stopped at
    step s with value v is taken to end at v + the median of (final value - value at s) over the
    complete trials that reported at s, v itself if there is none: its curve is assumed to go on as
    theirs did. How far that is wrong for one configuration and right for another is for the
    surrogate to learn: the gap says how much of the run is a guess. One trial is one observation.

    Args:
        trials: all trials of the study, in any state.
        directions: of the study's k objectives.
        space: the parameters that are chosen together.
        current: number of the trial that a suggestion is made for; it is left out.
    """
    signs = np.array([sign_of(direction) for direction in directions])
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    retried = {n for t in trials for n in t.system_attrs.get("retry_history", ())}
    observed: list[tuple[Configuration, np.ndarray, FrozenTrial]] = []
    infeasible, pending, seen = [], [], set()
    for trial in trials:
        configuration = space.restrict(published.intended(trial, space.distributions))
        if configuration is None or trial.number == current:
            continue
        seen.add(space.key(configuration))
        if trial.state == TrialState.RUNNING:
            pending.append(configuration)
        elif (values := _final_values(trial, complete)) is not None:
            observed.append((configuration, signs * values, trial))
        elif trial.state != TrialState.WAITING and not _is_accident(trial, retried):
            infeasible.append(configuration)
    return History(
        configurations=tuple(configuration for configuration, _, _ in observed),
        targets=np.array([values for _, values, _ in observed]).reshape(-1, len(signs)),
        gaps=_gaps([trial for _, _, trial in observed]),
        seconds=np.array([_seconds(trial) for _, _, trial in observed], dtype=np.float64),
        constraints=_constraints([trial for _, _, trial in observed]),
        infeasible=tuple(infeasible),
        pending=tuple(pending),
        seen=frozenset(seen),
    )


def _is_accident(trial: FrozenTrial, retried: Collection[int]) -> bool:
    """Whether a trial's end says nothing of its configuration: interrupted, or its worker died."""
    return bool(trial.user_attrs.get(INTERRUPTED)) or trial.number in retried


def _final_values(trial: FrozenTrial, complete: Sequence[FrozenTrial]) -> np.ndarray | None:
    """(k,); None if there is nothing to go by. Only a single objective's trials are pruned."""
    if trial.state == TrialState.COMPLETE:
        return np.array(trial.values, dtype=np.float64)
    step = trial.last_step
    if trial.state != TrialState.PRUNED or step is None or trial.user_attrs.get(INFEASIBLE):
        return None
    value = trial.intermediate_values[step]
    rests = [
        t.value - t.intermediate_values[step]
        for t in complete
        if t.value is not None and step in t.intermediate_values
    ]
    rests = [rest for rest in rests if math.isfinite(rest)]
    estimate = value + (float(np.median(rests)) if rests else 0.0)
    return None if math.isnan(estimate) else np.array([estimate])


def _gaps(trials: Sequence[FrozenTrial]) -> np.ndarray:
    """Steps count from where they count in the study, 0 or 1; the longest run is a whole one."""
    steps = [t.last_step for t in trials]
    ends = [step for step in steps if step is not None]
    first = min([1, *(step for t in trials for step in t.intermediate_values)])
    whole = max(ends, default=0) - first + 1
    return np.array(
        [
            1 - (step - first + 1) / whole
            if t.state == TrialState.PRUNED and step is not None
            else 0.0
            for t, step in zip(trials, steps, strict=True)
        ],
        dtype=np.float64,
    )


def _seconds(trial: FrozenTrial) -> float:
    if trial.state != TrialState.COMPLETE or trial.duration is None:
        return math.nan
    return trial.duration.total_seconds()


def _constraints(trials: Sequence[FrozenTrial]) -> dict[str, np.ndarray]:
    values = [compat.constraints_of(trial) for trial in trials]
    names = sorted({name for of_trial in values for name in of_trial})
    return {
        name: np.array([of_trial.get(name, math.nan) for of_trial in values], dtype=np.float64)
        for name in names
    }
