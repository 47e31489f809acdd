"""Every private Optuna name that the package touches, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from contextlib import suppress
from datetime import datetime
from datetime import timedelta
import time
from types import SimpleNamespace
from typing import Any
import warnings

import optuna
from optuna.samplers._base import _process_constraints_after_trial
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages._heartbeat import get_heartbeat_thread
from optuna.storages._heartbeat import is_heartbeat_enabled
from optuna.storages.journal import BaseJournalBackend
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_llmbo.errors import InputError


UpdateFinishedTrialError: type[Exception] = getattr(
    optuna.exceptions, "UpdateFinishedTrialError", RuntimeError
)
"""What a storage raises when a trial that has ended is to be changed."""

_BEAT = "llmbo:heartbeat"
"""System attribute with the time of a trial's last heartbeat, in storages without their own."""

_RETRIED = "retry_history"
"""Optuna's system attribute with the numbers of the trials that a trial retries."""

_SILENT_INTERVALS = 5
"""Heartbeats after which a trial that has neither sent one nor suggested anything is suspected."""

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
    name, retry = _retry(max_retry)
    is_sqlite = url.startswith("sqlite")
    patience = {"connect_args": {"timeout": _PATIENCE}} if is_sqlite else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        callback: dict[str, Any] = {name: retry}
        storage = optuna.storages.RDBStorage(
            url, engine_kwargs=patience, heartbeat_interval=seconds, **callback
        )
    if is_sqlite and storage.engine.url.database not in (None, "", ":memory:"):
        _one_at_a_time(storage.engine)
    return storage


_PATIENCE = 60
"""Seconds that a worker waits for another one that uses the same SQLite file."""


def _one_at_a_time(engine: Any) -> None:
    """Let SQLite's transactions lock the database from their beginning.

    Optuna takes a waiting trial by reading and then changing its state, with the row locked.
    SQLite locks no rows, so that two workers could take the same trial.
    """
    from sqlalchemy import event  # Optuna loads it for databases only

    @event.listens_for(engine, "connect")
    def begin_nothing(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver's own begin would come too late

    @event.listens_for(engine, "begin")
    def begin_with_the_lock(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections from before


def _retry(max_retry: int) -> tuple[str, Any]:
    """What retries the trials whose process died, and its name as an argument of a storage."""
    retry = getattr(optuna.storages, "RetryHeartbeatStaleTrialCallback", None)
    name = "heartbeat_stale_trial_callback"
    if retry is None:  # before Optuna 5
        retry, name = optuna.storages.RetryFailedTrialCallback, "failed_trial_callback"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return name, retry(max_retry=max_retry)


class JournalWithHeartbeat(optuna.storages.JournalStorage, BaseHeartbeat):
    """A journal whose trials are retried once their process is silent for two heartbeats.

    Optuna has heartbeats for databases only. Here they are a system attribute of the trial, with
    the clock of the worker's machine: workers' clocks have to agree to within a heartbeat.

    Args:
        backend: the journal.
        seconds: between heartbeats.
        max_retry: how often a trial is retried.
    """

    def __init__(self, backend: BaseJournalBackend, seconds: int, *, max_retry: int) -> None:
        super().__init__(backend)
        self._seconds = seconds
        _, self._callback = _retry(max_retry)

    def record_heartbeat(self, trial_id: int) -> None:
        with suppress(UpdateFinishedTrialError):  # another worker has given it up
            self.set_trial_system_attr(trial_id, _BEAT, time.time())

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        running = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
        oldest = time.time() - 2 * self._seconds
        return [t._trial_id for t in running if _last_sign(t) < oldest]

    def get_heartbeat_interval(self) -> int | None:
        return self._seconds

    def get_heartbeat_stale_trial_callback(self) -> Callable[[Study, FrozenTrial], None] | None:
        callback: Callable[[Study, FrozenTrial], None] = self._callback
        return callback

    def get_failed_trial_callback(self) -> Callable[[Study, FrozenTrial], None] | None:
        """The name before Optuna 5."""
        return self.get_heartbeat_stale_trial_callback()


def _last_sign(trial: FrozenTrial) -> float:
    """When a running trial was last known to be alive; always, if it never had a heartbeat."""
    if _BEAT not in trial.system_attrs or trial.datetime_start is None:
        return time.time()
    # a retry has the attribute of the trial that it retries, but starts after it
    return max(float(trial.system_attrs[_BEAT]), trial.datetime_start.timestamp())


def retry_stale_trials(study: Study) -> None:
    """Retry trials whose process has gone silent now, not with the next trial.

    A process that died between creating a trial and its first heartbeat left a trial that Optuna
    never finds to be stale, and that would take a place for ever. A trial that has suggested
    nothing for a while is given a first heartbeat here, which makes it stale two heartbeats later,
    unless its process is alive and sends the next one.
    """
    if is_heartbeat_enabled(study._storage):
        interval = study._storage.get_heartbeat_interval()  # type: ignore[attr-defined]
        oldest = datetime.now() - timedelta(seconds=_SILENT_INTERVALS * interval)
        for trial in all_trials(study):
            # a retry has the parameters of the trial that it retries from its beginning
            has_suggested = bool(trial.params) and _RETRIED not in trial.system_attrs
            has_begun = has_suggested or (trial.datetime_start or oldest) > oldest
            if trial.state == TrialState.RUNNING and not has_begun:
                if not _has_heartbeat(study, trial):
                    record_heartbeat(study, trial)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)


def _has_heartbeat(study: Study, trial: FrozenTrial) -> bool:
    """Whether a trial has ever had a heartbeat, in a storage that has them."""
    storage: Any = getattr(study._storage, "_backend", study._storage)
    if not isinstance(storage, optuna.storages.RDBStorage):
        return _BEAT in trial.system_attrs
    from optuna.storages._rdb import models
    from optuna.storages._rdb.storage import _create_scoped_session

    with _create_scoped_session(storage.scoped_session) as session:
        return models.TrialHeartbeatModel.where_trial_id(trial._trial_id, session) is not None


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


def ask_again(trial: optuna.Trial, params: Mapping[str, Any]) -> optuna.Trial:
    """A running trial that has suggested nothing yet, with other fixed parameters."""
    trial.storage.set_trial_system_attr(trial._trial_id, "fixed_params", dict(params))
    return optuna.Trial(trial.study, trial._trial_id)


def fixed_params(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters that a trial was enqueued with; empty if it was not."""
    return dict(trial.system_attrs.get("fixed_params", {}))


def put_back(trial: optuna.Trial) -> None:
    """Put a running trial that has suggested nothing yet back into the queue."""
    trial.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)


def now(trial: optuna.Trial) -> FrozenTrial:
    """A trial as the storage has it now, which another worker may have ended."""
    return trial.storage.get_trial(trial._trial_id)


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
    return list(attributes.get(_RETRIED, ()))


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


def user_attribute(study: Study, key: str) -> Any:
    """Read a study's user attribute from the storage; None if it has none of that name.

    `HyperbandPruner` shows a sampler a study without `user_attrs`.
    """
    return study._storage.get_study_user_attrs(study._study_id).get(key)


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
