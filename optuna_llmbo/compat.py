"""Every private Optuna name that the package touches, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence

from optuna.samplers._base import _process_constraints_after_trial
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState


def all_trials(study: Study) -> list[FrozenTrial]:
    """All trials, those of other workers and of other Hyperband brackets among them.

    The public `Study.get_trials` shows a sampler under Hyperband its own bracket only.
    """
    return study._get_trials(deepcopy=False, use_cache=False)


def study_id(study: Study) -> int:
    """What tells two studies of one storage apart."""
    return study._study_id


def store_constraints(
    constraints_func: Callable[[FrozenTrial], Sequence[float]],
    study: Study,
    trial: FrozenTrial,
    state: TrialState,
) -> None:
    """Evaluate and store a trial's constraints, where Optuna and its dashboard look for them."""
    _process_constraints_after_trial(constraints_func, study, trial, state)
