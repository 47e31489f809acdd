"""Every private Optuna name that the package touches, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
import warnings

import optuna
from optuna.samplers._base import _process_constraints_after_trial
from optuna.storages._heartbeat import get_heartbeat_thread
from optuna.storages._heartbeat import is_heartbeat_enabled
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_llmbo.errors import InputError


_PIECE = 2045
"""Length of an attribute's value that every storage accepts, in characters."""


def all_trials(study: Study) -> list[FrozenTrial]:
    """All trials, including those of other workers and of other Hyperband brackets.

    The public `Study.get_trials` shows a sampler under Hyperband its own bracket only.
    """
    return study._get_trials(deepcopy=False, use_cache=False)


def storage_with_heartbeat(
    url: str, seconds: int, *, max_retry: int
) -> optuna.storages.RDBStorage:
    """Open a database whose trials are retried once their process is silent for two heartbeats.

    Args:
        url: of the database.
        seconds: between heartbeats.
        max_retry: how often a trial is retried.
    """
    retry = getattr(optuna.storages, "RetryHeartbeatStaleTrialCallback", None)
    name = "heartbeat_stale_trial_callback"
    if retry is None:  # before Optuna 5
        retry, name = optuna.storages.RetryFailedTrialCallback, "failed_trial_callback"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        callback: dict[str, Any] = {name: retry(max_retry=max_retry)}
        return optuna.storages.RDBStorage(url, heartbeat_interval=seconds, **callback)


def retry_stale_trials(study: Study) -> None:
    """Retry trials whose process has gone silent now, not with the next trial."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)


def name_metrics(study: Study, names: Sequence[str]) -> None:
    """Name a study's objectives, for dashboards and reports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(names))


def ask(study: Study) -> optuna.Trial:
    """Ask for a new trial, to be run inside `heartbeat`.

    Optuna warns that trials of `Study.ask` have no heartbeat; inside `heartbeat` they have.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Heartbeat of storage")
        return study.ask()


@contextmanager
def heartbeat(trial: optuna.Trial) -> Iterator[None]:
    """Send a running trial's heartbeats while inside, where the storage has them.

    `Study.optimize` does this for its own trials, but nobody does for those of `Study.ask`.
    """
    with get_heartbeat_thread(trial._trial_id, trial.storage):
        yield


def record_heartbeat(study: Study, trial: FrozenTrial) -> None:
    """Record a first heartbeat of a trial that has just been created, where the storage has them.

    Optuna's own begin a moment later. A process that dies before would leave a running trial that
    never had a heartbeat, and so is never found to be stale.
    """
    if is_heartbeat_enabled(study._storage):
        study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]


def retry_history(trial: optuna.trial.BaseTrial) -> list[int]:
    """The numbers of the trials that a running trial retries, the latest last."""
    if not isinstance(trial, optuna.Trial):
        return []
    attributes = trial.storage.get_trial_system_attrs(trial._trial_id)
    return list(attributes.get("retry_history", ()))


def study_id(study: Study) -> int:
    """An id that tells two studies of one storage apart."""
    return study._study_id


def set_system_text(study: Study, trial: FrozenTrial, prefix: str, text: str) -> None:
    """Store a text in a running trial's system attributes, in pieces that every storage accepts.

    Left-over pieces of an earlier, longer text are emptied.
    """
    pieces = [text[i : i + _PIECE] for i in range(0, len(text), _PIECE)]
    left_over = sum(key.startswith(prefix) for key in trial.system_attrs) - len(pieces)
    for i, piece in enumerate([*pieces, *[""] * left_over]):
        study._storage.set_trial_system_attr(trial._trial_id, f"{prefix}{i}", piece)


def system_text(trial: FrozenTrial, prefix: str) -> str:
    """Read a text that `set_system_text` stored; empty if there is none."""
    attributes = trial.system_attrs
    pieces: list[str] = []
    while (piece := attributes.get(f"{prefix}{len(pieces)}")) is not None:
        pieces.append(piece)
    return "".join(pieces)


def set_user_attributes(study: Study, trial: FrozenTrial, attributes: Mapping[str, Any]) -> None:
    """Store user attributes of a running trial; a sampler is only given a copy of it."""
    for name, value in attributes.items():
        study._storage.set_trial_user_attr(trial._trial_id, name, value)


def constraints_of(trial: FrozenTrial) -> dict[str, float]:
    """A finished trial's constraints by name; before Optuna 5 they are numbered."""
    if hasattr(trial, "constraints"):
        return dict(trial.constraints)
    values = trial.system_attrs.get("constraints") or ()
    return {f"{i:04}": value for i, value in enumerate(values)}


def store_constraints(
    constraints_func: Callable[[FrozenTrial], Sequence[float]],
    study: Study,
    trial: FrozenTrial,
    state: TrialState,
) -> None:
    """Evaluate a trial's constraints and store them where Optuna and its dashboard look.

    Raises:
        InputError: if the function does not return numbers in a sequence.
    """

    def checked(trial: FrozenTrial) -> Sequence[float]:
        values = constraints_func(trial)
        if not isinstance(values, Iterable) or isinstance(values, str):
            raise InputError(
                "constraints_func must return its numbers in a tuple, feasible at or below 0; got "
                f"{values!r}."
            )
        return values

    _process_constraints_after_trial(checked, study, trial, state)


def system_attribute(study: Study, key: str) -> Any:
    """Read a study's system attribute from the storage; None if it has none of that name."""
    return study._storage.get_study_system_attrs(study._study_id).get(key)


def set_system_attribute(study: Study, key: str, value: Any) -> None:
    """Store a study's system attribute: JSON of at most 2,045 characters."""
    study._storage.set_study_system_attr(study._study_id, key, value)


def trial_with_note(study: Study, trial: FrozenTrial) -> Any:
    """Stand in for the `Trial` that optuna-dashboard's `save_note` and `get_note` take.

    A real `Trial` cannot be made of a finished trial without asking the sampler.
    """
    return SimpleNamespace(storage=study._storage, study=study, _trial_id=trial._trial_id)
