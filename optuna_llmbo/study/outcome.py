"""How a trial has ended, or where it stands: finer than Optuna's states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import get_args
from typing import Literal

from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_llmbo.study import compat
from optuna_llmbo.study.trial_attributes import INFEASIBLE
from optuna_llmbo.study.trial_attributes import INTERRUPTED


Outcome = Literal[
    "complete", "pruned", "infeasible", "failed", "interrupted", "running", "waiting"
]
"""Infeasible: it breaks a constraint, or its objective says that it cannot be run. Interrupted: by
the user."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
_ALWAYS = OUTCOMES[:4]


def outcome_of(trial: FrozenTrial) -> Outcome:
    """Of a trial in any state."""
    if trial.state == TrialState.FAIL:
        return "interrupted" if trial.user_attrs.get(INTERRUPTED) else "failed"
    if trial.state == TrialState.RUNNING:
        return "running"
    if trial.state == TrialState.WAITING:
        return "waiting"
    if trial.user_attrs.get(INFEASIBLE) or violated(trial):
        return "infeasible"
    return "complete" if trial.state == TrialState.COMPLETE else "pruned"


def violated(trial: FrozenTrial) -> dict[str, float]:
    """The constraints that a trial breaks, by name, with their values: above 0."""
    return {name: value for name, value in compat.constraints_of(trial).items() if value > 0}


def count(outcomes: Iterable[Outcome]) -> dict[Outcome, int]:
    """How many there are of each, in the order of `OUTCOMES`; zeros are left out but for the first
    four."""
    counted = Counter(outcomes)
    return {name: counted[name] for name in OUTCOMES if counted[name] or name in _ALWAYS}
