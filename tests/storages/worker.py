"""A worker of a study on PostgreSQL, as a process of its own, or several.

    python -m tests.storages.worker URL STUDY --trials 8 --workers 8

With --stop-at it stops for good in its first trial, at a stage of it, and says so by making the
file --flag: there it waits to be killed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import multiprocessing
import os
from pathlib import Path
import sys
import time
from typing import Any
import warnings

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.study import MaxTrialsCallback
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import psycopg
import sqlalchemy

from optuna_llmbo import LLMBOSampler


HEARTBEAT = 1
"""Seconds between two signs of life of a trial."""

GRACE, LONG_GRACE = 3, 60
"""Seconds without one after which a trial is given up; on a busy machine some come late."""

N_STARTUP = 4

STAGES = ("asked", "chosen", "half", "whole")
"""Of a trial: nothing is chosen yet; all is chosen, and the trial told nothing; it is told one
parameter of two; it is told both, and trains."""


class StoppingSampler(LLMBOSampler):
    """Stops in the middle of a suggestion: before it is made, or after."""

    def __init__(self, stage: str | None, stop: Callable[[], None]) -> None:
        super().__init__(kernel="numeric", n_startup_trials=N_STARTUP, seed=0)
        self._stage, self._stop = stage, stop

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As it is, with a stop."""
        if self._stage == "asked":
            self._stop()
        chosen = super().sample_relative(study, trial, search_space)
        if self._stage == "chosen":
            self._stop()
        return chosen


def open_storage(url: str, grace: int = GRACE) -> RDBStorage:
    """A storage with heartbeats, which waits for a database that is away."""
    return RDBStorage(
        url,
        engine_kwargs={"creator": lambda: connect(url), "pool_pre_ping": True},
        heartbeat_interval=HEARTBEAT,
        grace_period=grace,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=3),
    )


def connect(url: str, patience: float = 60.0) -> psycopg.Connection[Any]:
    """A connection to the database, as soon as there is one."""
    parts = sqlalchemy.make_url(url).translate_connect_args(username="user", database="dbname")
    end = time.monotonic() + patience
    while True:
        try:
            return psycopg.connect(**parts)
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def open_study(
    storage: RDBStorage, name: str, sampler: LLMBOSampler | None = None
) -> optuna.Study:
    """The study, made if it is not there; all workers' samplers have the same seed."""
    return optuna.create_study(
        storage=storage,
        study_name=name,
        load_if_exists=True,
        sampler=sampler or LLMBOSampler(kernel="numeric", n_startup_trials=N_STARTUP, seed=0),
    )


def objective(
    trial: optuna.Trial, stage: str | None = None, stop: Callable[[], None] = lambda: None
) -> float:
    """A bowl; stops at a stage."""
    x = trial.suggest_float("x", -5, 5)
    if stage == "half":
        stop()
    y = trial.suggest_float("y", 0, 1)
    if stage == "whole":
        stop()
    return (x - 1) ** 2 + 10 * (y - 0.3) ** 2


def work(arguments: argparse.Namespace) -> None:
    """Run trials, as one worker."""

    def stop() -> None:
        arguments.flag.touch()
        sys.stdin.read()  # ends when the test does, if it does not kill
        os._exit(1)

    def slow_objective(trial: optuna.Trial) -> float:
        value = objective(trial, arguments.stop_at, stop)
        time.sleep(arguments.seconds)
        return value

    sampler = StoppingSampler(arguments.stop_at, stop)
    study = open_study(open_storage(arguments.url, arguments.grace), arguments.study, sampler)
    callbacks = []
    if arguments.until is not None:
        callbacks.append(MaxTrialsCallback(arguments.until, states=(TrialState.COMPLETE,)))
    study.optimize(slow_objective, n_trials=arguments.trials, callbacks=callbacks)


def main() -> None:
    """Work, alone or in several processes; ends with 1 if one of these failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("study")
    parser.add_argument("--trials", type=int, help="of each worker")
    parser.add_argument("--until", type=int, help="trials of the study are complete")
    parser.add_argument("--seconds", type=float, default=0.0, help="that an objective takes")
    parser.add_argument("--grace", type=int, default=LONG_GRACE)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--stop-at", choices=STAGES)
    parser.add_argument("--flag", type=Path)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    if arguments.workers == 1:
        work(arguments)
        return
    fork = multiprocessing.get_context("fork")  # after the imports, which take longest
    processes = [fork.Process(target=work, args=(arguments,)) for _ in range(arguments.workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(any(process.exitcode for process in processes))


if __name__ == "__main__":
    main()
