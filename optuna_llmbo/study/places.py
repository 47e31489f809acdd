"""Places of a search: whether a worker may begin one more trial, and which one is the control."""

from __future__ import annotations

from collections.abc import Mapping
import random
import time
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_llmbo.study import compat
from optuna_llmbo.study.outcome import outcome_of


_TAKEN = ("complete", "pruned", "infeasible", "running")
"""Outcomes of trials that have a place; failed and interrupted ones make room for another."""
_CONTROLS = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
_PAUSE = 0.5
"""Most seconds until a worker that found all places taken looks again."""


def begin_trial(
    study: optuna.Study, n_trials: int, *, control: Mapping[str, Any] | None = None
) -> optuna.Trial | None:
    """Begin a trial if the study lacks one, for several workers that start and end at any time.

    Storages have no lock. A worker that sees a free place begins a trial and looks again: of two
    that begin the last one at the same moment at least one sees the other. It puts its trial back
    into the queue, where the next one to begin is taken from, and looks again after a moment. So
    there are never more trials with a place than places.

    Trials whose worker has died are failed and retried, where the storage has heartbeats.

    Args:
        study: the study.
        n_trials: number of places: of trials that are running, complete, pruned or infeasible.
        control: parameters of the control, which is enqueued by every worker and is to run once:
            the first of its trials keeps them, the others become trials like any other.

    Returns:
        A running trial that has suggested nothing yet, or None if every place is taken.
    """
    while True:
        compat.retry_stale_trials(study)
        if _n_taken(study) >= n_trials:
            return None
        trial = compat.ask(study)
        compat.record_heartbeat(study, compat.now(trial))
        if _n_taken(study) <= n_trials:
            return trial if control is None else _as_control(trial, control)
        compat.put_back(trial)
        time.sleep(random.uniform(0.0, _PAUSE))


def enqueue_control(study: optuna.Study, control: Mapping[str, Any]) -> None:
    """Enqueue the control, unless it is complete, running or waiting."""
    if not any(_is_control(trial, control) for trial in compat.all_trials(study)):
        study.enqueue_trial(dict(control))


def _n_taken(study: optuna.Study) -> int:
    return sum(outcome_of(trial) in _TAKEN for trial in compat.all_trials(study))


def _as_control(trial: optuna.Trial, control: Mapping[str, Any]) -> optuna.Trial:
    """The trial; without the control's parameters if an earlier one has them."""
    ours = compat.now(trial)
    if not _is_control(ours, control):
        return trial
    earlier = (t for t in compat.all_trials(trial.study) if t.number < ours.number)
    if any(_is_control(one, control) for one in earlier):
        return compat.ask_again(trial, {})
    return trial


def _is_control(trial: FrozenTrial, control: Mapping[str, Any]) -> bool:
    """Whether a trial has run the control, or is to run it."""
    if trial.state not in _CONTROLS:
        return False
    return dict(control) in (compat.fixed_params(trial), trial.params)
