"""Publish while a study runs: rarely, by one worker, and without ever failing it."""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Any
from typing import TYPE_CHECKING
import uuid

import optuna
from optuna.trial import FrozenTrial

from optuna_llmbo.dashboard.publish import check_installed
from optuna_llmbo.dashboard.publish import publish
from optuna_llmbo.errors import check_at_least
from optuna_llmbo.errors import warn_once
from optuna_llmbo.study import compat
from optuna_llmbo.study.trial_attributes import PUBLISHED


if TYPE_CHECKING:
    from optuna_llmbo.sampler import LLMBOSampler


class DashboardCallback:
    """A callback for `study.optimize` that publishes to optuna-dashboard now and then.

    The worker that runs trial number every - 1, 2 * every - 1, ... publishes when that trial has
    finished, so only one of several workers does. `close`, or the end of a `with` block, publishes
    what finished later. It never makes a study fail: errors are logged as a warning, once.

    Args:
        every: number of trials from one publication to the next.
        sampler: see `publish`; default: the study's, if it is an `LLMBOSampler`.
        proxy_check: see `publish`.
        artifact_store: see `publish`.

    Raises:
        InputError: if `every` is not an integer of at least 1, or optuna-dashboard is missing.
    """

    def __init__(
        self,
        every: int = 5,
        *,
        sampler: LLMBOSampler | None = None,
        proxy_check: str | os.PathLike[str] | None = None,
        artifact_store: Any = None,
    ) -> None:
        check_at_least("every", every, 1)
        check_installed()
        self._every = every
        self._sampler = sampler
        self._options: dict[str, Any] = {
            "proxy_check": proxy_check,
            "artifact_store": artifact_store,
        }
        self._study: optuna.Study | None = None
        self._lock = threading.Lock()  # with n_jobs, threads share the callback

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._study = study
        if trial.number % self._every == self._every - 1:
            self._publish(study)

    def __enter__(self) -> DashboardCallback:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Publish the trials that have finished since the last time, if any."""
        if self._study is not None:
            self._publish(self._study)

    def _publish(self, study: optuna.Study) -> None:
        with self._lock:
            try:
                if _claim(study):
                    publish(study, self._sampler or _own_sampler(study), **self._options)
            except Exception as error:  # a figure must not end the search
                warn_once(
                    f"optuna-llmbo: could not publish to optuna-dashboard: "
                    f"{type(error).__name__}: {error} The study goes on."
                )


def _own_sampler(study: optuna.Study) -> LLMBOSampler | None:
    """Return the study's sampler if it is an `LLMBOSampler`, else None."""
    from optuna_llmbo.sampler import LLMBOSampler

    return study.sampler if isinstance(study.sampler, LLMBOSampler) else None


def _claim(study: optuna.Study) -> bool:
    """Claim the publication of the study's current state; False if another worker has it."""
    n_finished = sum(trial.state.is_finished() for trial in compat.all_trials(study))
    there = compat.system_attribute(study, PUBLISHED)
    if there is not None and there["finished"] >= n_finished:
        return False
    ours = {"finished": n_finished, "by": uuid.uuid4().hex}
    compat.set_system_attribute(study, PUBLISHED, ours)
    return bool(compat.system_attribute(study, PUBLISHED) == ours)
