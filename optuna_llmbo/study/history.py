"""Optuna trials -> History: what was observed, what is running, what did not work.

Shapes: n observed, q objectives.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
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
    """What a study's trials say about one search space."""

    configurations: tuple[Configuration, ...]
    """The n observed configurations: of complete trials, and of pruned ones with a value."""
    targets: np.ndarray
    """(n, q) float64, a column for each objective, larger is better; may be infinite. For pruned
    trials an estimate: see `read_history`."""
    gaps: np.ndarray
    """(n,) float64: 1 - the share of its steps that a trial ran; 0 for complete ones."""
    seconds: np.ndarray
    """(n,) float64: duration of complete trials in seconds, nan for pruned ones."""
    constraints: dict[str, np.ndarray]
    """(n,) float64 for each constraint, feasible at or below 0, nan where it was not set."""
    infeasible: tuple[Configuration, ...]
    """Tried without a score: failed trials, and pruned ones without a value. As far as they were
    suggested: a trial may have ended before its last parameter."""
    pending: tuple[Configuration, ...]
    """Running trials of all workers, as far as they have suggested or published them."""
    seen: frozenset[Key]
    """Keys of all of these, and of interrupted trials."""
    begun: tuple[Configuration, ...] = ()
    """What running trials have suggested that do not say all that they will try: the first trial
    of a study, which suggests one parameter after the other."""

    @property
    def n_observed(self) -> int:
        """Number of configurations with a target, n."""
        return len(self.configurations)

    def first(self, n: int) -> History:
        """The history as if only the first n observed trials had been run."""
        return replace(
            self,
            configurations=self.configurations[:n],
            targets=self.targets[:n],
            gaps=self.gaps[:n],
            seconds=self.seconds[:n],
            constraints={name: values[:n] for name, values in self.constraints.items()},
        )


def sign_of(direction: StudyDirection) -> float:
    """The factor that turns an objective's values into targets, where larger is better."""
    return -1.0 if direction == StudyDirection.MINIMIZE else 1.0


def best_first(targets: np.ndarray) -> np.ndarray:
    """The indices that sort targets (n, q), the best first.

    With several objectives, targets that fewer others dominate come first.
    """
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
    """Sort a study's trials by what they say about `space`.

    Trials that lack one of the space's shared parameters are left out, unless they ended without a
    score: then what they had suggested by then did not work. A pruned trial stopped at
    step s with value v is taken to end at v + the median of (final value - value at s) over the
    complete trials that reported at s, v itself if there is none: its curve is assumed to go on as
    theirs did. The surrogate learns how far that is wrong for one configuration and right for
    another: the gap says how much of the run is a guess. One trial is one observation.

    Args:
        trials: all trials of the study, in any state.
        directions: directions of the study's q objectives.
        space: the parameters that are chosen together.
        current: number of the trial that a configuration is chosen for; it is left out.
    """
    signs = np.array([sign_of(direction) for direction in directions])
    trend = _Trend([t for t in trials if t.state == TrialState.COMPLETE])
    retried = {n for t in trials for n in t.system_attrs.get("retry_history", ())}
    observed: list[tuple[Configuration, np.ndarray, FrozenTrial]] = []
    infeasible, pending, seen, begun = [], [], [], []
    for trial in trials:
        if trial.number == current:
            continue
        values = _final_values(trial, trend)
        has_score = values is not None
        params = trial.params if has_score else published.intended(trial, space.distributions)
        if (configuration := space.restrict(params)) is not None:
            seen.append(configuration)
            if values is not None:
                observed.append((configuration, signs * values, trial))
            elif trial.state == TrialState.RUNNING:
                pending.append(configuration)
        elif trial.state == TrialState.RUNNING and (part := space.part(params)) is not None:
            begun.append(part)
        failed = not has_score and trial.state.is_finished() and not _is_accident(trial, retried)
        if failed and (part := space.part(trial.params)) is not None:
            infeasible.append(part)
    return History(
        configurations=tuple(configuration for configuration, _, _ in observed),
        targets=np.array([values for _, values, _ in observed]).reshape(-1, len(signs)),
        gaps=_gaps([trial for _, _, trial in observed]),
        seconds=np.array([_seconds(trial) for _, _, trial in observed], dtype=np.float64),
        constraints=_constraints([trial for _, _, trial in observed]),
        infeasible=tuple(infeasible),
        pending=tuple(pending),
        seen=frozenset(space.keys(space.to_unit(seen))),
        begun=tuple(begun),
    )


def _is_accident(trial: FrozenTrial, retried: Collection[int]) -> bool:
    """Whether a trial was interrupted or its worker died: it says nothing of its configuration."""
    return bool(trial.user_attrs.get(INTERRUPTED)) or trial.number in retried


@dataclass(frozen=True)
class _Trend:
    """How the complete trials went on after each step."""

    complete: Sequence[FrozenTrial]
    known: dict[int, float] = field(default_factory=dict)

    def rest(self, step: int) -> float:
        """The median change from a step to the end; 0 if no complete trial reported at it."""
        if step not in self.known:
            rests = [
                t.value - t.intermediate_values[step]
                for t in self.complete
                if t.value is not None and step in t.intermediate_values
            ]
            finite = [rest for rest in rests if math.isfinite(rest)]
            self.known[step] = float(np.median(finite)) if finite else 0.0
        return self.known[step]


def _final_values(trial: FrozenTrial, trend: _Trend) -> np.ndarray | None:
    """Final or estimated values, (q,); None without any. Only single-objective trials prune."""
    if trial.state == TrialState.COMPLETE:
        return np.array(trial.values, dtype=np.float64)
    step = trial.last_step
    if trial.state != TrialState.PRUNED or step is None or trial.user_attrs.get(INFEASIBLE):
        return None
    estimate = trial.intermediate_values[step] + trend.rest(step)
    return None if math.isnan(estimate) else np.array([estimate])


def _gaps(trials: Sequence[FrozenTrial]) -> np.ndarray:
    """The share of each run that was not made, (n,).

    Steps count from 0 or 1, as they do in the study; the longest run counts as a whole one.
    """
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
