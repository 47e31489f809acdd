"""How a trial ended, or where it stands: finer than Optuna's states.

The one place that decides what counts as feasible, and which trial is the default.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from collections.abc import Sequence
from typing import get_args
from typing import Literal
from typing import overload

import numpy as np
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_llmbo.study import compat
from optuna_llmbo.study.trial_attributes import INFEASIBLE
from optuna_llmbo.study.trial_attributes import INTERRUPTED
from optuna_llmbo.study.trial_attributes import IS_DEFAULT
from optuna_llmbo.study.trial_attributes import RECIPE


Outcome = Literal[
    "complete", "pruned", "infeasible", "failed", "interrupted", "running", "waiting"
]
"""Infeasible: the trial breaks a constraint, or its objective says that it cannot be run.
Interrupted: stopped by the user, or by the end of the search's time. Complete and pruned trials
are feasible."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
_ALWAYS = OUTCOMES[:4]


class TrialCrashed(RuntimeError):
    """An error in a trial that is not a result: the trial fails, and the study can go on."""


def outcome_of(trial: FrozenTrial) -> Outcome:
    """The outcome of a trial in any state."""
    if trial.state == TrialState.FAIL:
        return "interrupted" if trial.user_attrs.get(INTERRUPTED) else "failed"
    if trial.state == TrialState.RUNNING:
        return "running"
    if trial.state == TrialState.WAITING:
        return "waiting"
    if trial.user_attrs.get(INFEASIBLE) or violated(trial):
        return "infeasible"
    return "complete" if trial.state == TrialState.COMPLETE else "pruned"


def complete(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The complete trials that break no constraint: those that may be recommended."""
    return [trial for trial in trials if outcome_of(trial) == "complete"]


def violated(trial: FrozenTrial) -> dict[str, float]:
    """The constraints that a trial breaks, by name, with their values."""
    return {name: v for name, v in compat.constraints_of(trial).items() if breaks(v)}


@overload
def breaks(constraint: float) -> bool: ...


@overload
def breaks(constraint: np.ndarray) -> np.ndarray: ...


def breaks(constraint: float | np.ndarray) -> bool | np.ndarray:
    """Whether a constraint's value breaks it: above 0, as in Optuna; nan breaks nothing."""
    return constraint > 0


def default_trial(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The first complete trial that the objective marked as the default configuration, the
    control of the search; None if there is none.

    Where the default changed with the search space, the latest one counts.
    """
    marked = [trial for trial in trials if trial.user_attrs.get(IS_DEFAULT)]
    complete = [trial for trial in marked if trial.state == TrialState.COMPLETE]
    same = (t for t in complete if t.user_attrs.get(RECIPE) == complete[-1].user_attrs.get(RECIPE))
    return next(same, None)


def count(outcomes: Iterable[Outcome]) -> dict[Outcome, int]:
    """How many there are of each, in the order of `OUTCOMES`; zeros are left out except for the
    first four."""
    counted = Counter(outcomes)
    return {name: counted[name] for name in OUTCOMES if counted[name] or name in _ALWAYS}
