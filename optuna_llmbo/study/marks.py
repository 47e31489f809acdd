"""Mark in a trial's attributes how it ends."""

from __future__ import annotations

import traceback

import optuna
from optuna.trial import BaseTrial

from optuna_llmbo.study.trial_attributes import FAILED_REASON
from optuna_llmbo.study.trial_attributes import INFEASIBLE
from optuna_llmbo.study.trial_attributes import PRUNED_REASON
from optuna_llmbo.study.trial_attributes import TRACEBACK


MAX_SENTENCE = 300
"""Most characters of a reason that are kept."""
MAX_TRACEBACK = 2000
"""Last characters of a traceback that are kept; they fit every storage's attributes."""


def pruned(trial: BaseTrial, reason: str) -> optuna.TrialPruned:
    """Record why a trial is pruned; return the exception to raise."""
    trial.set_user_attr(PRUNED_REASON, reason[:MAX_SENTENCE])
    return optuna.TrialPruned(reason)


def infeasible(trial: BaseTrial, reason: str) -> optuna.TrialPruned:
    """As `pruned`, for a configuration that cannot be run."""
    trial.set_user_attr(INFEASIBLE, True)
    return pruned(trial, reason)


def failed(trial: BaseTrial, error: BaseException) -> None:
    """Record the error that a trial fails with."""
    reason = f"{type(error).__name__}: {error}"
    trial.set_user_attr(FAILED_REASON, reason[:MAX_SENTENCE])
    text = "".join(traceback.format_exception(error))
    trial.set_user_attr(TRACEBACK, text[-MAX_TRACEBACK:])
