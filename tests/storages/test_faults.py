"""Many workers, and what they and the database may die of: real processes on a real PostgreSQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any

import optuna
from optuna.storages import fail_stale_trials
from optuna.storages import InMemoryStorage
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from benchmarks import postgres
from tests.storages import worker


pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.long]

Begin = Callable[..., "subprocess.Popen[bytes]"]

PATIENCE = 240.0
"""Seconds that a test waits for what has to come."""

retries_of = RetryHeartbeatStaleTrialCallback.retry_history


@pytest.fixture
def study(postgresql: postgres.Cluster, study_name: str) -> Iterator[optuna.Study]:
    """A study on PostgreSQL, with heartbeats and retries."""
    storage = worker.open_storage(postgresql.url)
    yield worker.open_study(storage, study_name)
    storage.engine.dispose()


@pytest.fixture
def other_cluster() -> Iterator[postgres.Cluster]:
    """A PostgreSQL that may be stopped: nobody else has connections to it."""
    if postgres.binaries() is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres.cluster() as cluster:
        yield cluster


@pytest.fixture
def other_study(other_cluster: postgres.Cluster, study_name: str) -> Iterator[optuna.Study]:
    """A study there."""
    storage = worker.open_storage(other_cluster.url)
    yield worker.open_study(storage, study_name)
    storage.engine.dispose()


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Begins a worker of a study; those that are left at the end are killed."""
    processes = []

    def begin_one(cluster: postgres.Cluster, study: optuna.Study, *options: object) -> Any:
        command = [sys.executable, "-m", "tests.storages.worker", cluster.url, study.study_name]
        process = subprocess.Popen(
            [*command, *map(str, options)], stdin=subprocess.PIPE, start_new_session=True
        )
        processes.append(process)
        return process

    yield begin_one
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # those that it has begun too
        process.communicate()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "what was to come did not"
        time.sleep(0.05)


def check_numbers(trials: list[FrozenTrial]) -> None:
    """None is lost, doubled or stuck."""
    assert sorted(trial.number for trial in trials) == list(range(len(trials)))
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.FAIL}


def params_of(trials: list[FrozenTrial]) -> set[tuple[tuple[str, Any], ...]]:
    return {tuple(sorted(trial.params.items())) for trial in trials}


@pytest.mark.slow
def test_eight_workers(postgresql: postgres.Cluster, study: optuna.Study, begin: Begin) -> None:
    assert begin(postgresql, study, "--trials", 5, "--workers", 8).wait(PATIENCE) == 0
    trials = study.get_trials()
    check_numbers(trials)
    assert len(params_of(trials)) == len(trials) == 40
    assert all(trial.state == TrialState.COMPLETE for trial in trials)
    late = sorted(trials, key=lambda trial: trial.number)[20:]
    assert sum(abs(trial.params["x"] - 1) < 1 for trial in late) > 10  # they learn of each other


@pytest.mark.slow
def test_killed_workers(
    postgresql: postgres.Cluster, study: optuna.Study, begin: Begin, tmp_path: Path
) -> None:
    """Their trials fail and are tried again, wherever in a trial they were killed."""
    study.optimize(worker.objective, n_trials=worker.N_STARTUP)
    processes = [
        begin(postgresql, study, "--stop-at", stage, "--flag", tmp_path / stage)
        for stage in worker.STAGES
    ]
    wait_until(lambda: all((tmp_path / stage).exists() for stage in worker.STAGES))
    given_up = [t for t in study.get_trials() if t.state == TrialState.RUNNING]
    assert Counter(len(t.params) for t in given_up) == {0: 2, 1: 1, 2: 1}
    for process in processes:
        process.kill()
        process.wait()

    study.optimize(worker.objective, n_trials=2)  # the others go on at once
    wait_until(lambda: _n_stale(study) == _n_running(study))  # some may have failed already
    study.optimize(worker.objective, n_trials=len(given_up) + 2)

    trials = study.get_trials()
    check_numbers(trials)
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert [trial.number for trial in failed] == [trial.number for trial in given_up]
    again = {retries_of(trial)[0]: trial for trial in trials if retries_of(trial)}
    assert sorted(again) == [trial.number for trial in failed]
    for trial in failed:
        assert again[trial.number].state == TrialState.COMPLETE
        assert again[trial.number].params.items() >= trial.params.items()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(params_of(complete)) == len(complete) == worker.N_STARTUP + 2 + len(given_up) + 2


def _n_stale(study: optuna.Study) -> int:
    return len(study._storage._backend._get_stale_trial_ids(study._study_id))  # type: ignore[attr-defined]


def _n_running(study: optuna.Study) -> int:
    return len(study.get_trials(states=(TrialState.RUNNING,)))


def test_database_restarted_during_training(
    other_cluster: postgres.Cluster, other_study: optuna.Study
) -> None:
    """Who is not in the middle of a transaction does not notice."""

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", -5, 5)
        other_cluster.restart()
        return x**2 + trial.suggest_float("y", 0, 1)

    other_study.optimize(objective, n_trials=worker.N_STARTUP + 2)
    assert all(trial.state == TrialState.COMPLETE for trial in other_study.trials)


@pytest.mark.slow
def test_database_away(
    other_cluster: postgres.Cluster, other_study: optuna.Study, begin: Begin
) -> None:
    """The study goes on when it is back; a worker that has ended is begun again."""
    n_trials = 16
    options = ("--until", n_trials, "--seconds", 0.2, "--grace", worker.GRACE)
    workers = [begin(other_cluster, other_study, *options) for _ in range(2)]

    def supervised_until(n: int) -> None:
        def is_reached() -> bool:
            for i, process in enumerate(workers):
                if process.poll():
                    workers[i] = begin(other_cluster, other_study, *options)
            return len(other_study.get_trials(states=(TrialState.COMPLETE,))) >= n

        wait_until(is_reached)

    for n in (4, 10):
        supervised_until(n)
        other_cluster.stop()
        time.sleep(1.0)
        other_cluster.start()
    supervised_until(n_trials)
    wait_until(lambda: all(process.poll() is not None for process in workers))

    time.sleep(worker.GRACE + 1)
    fail_stale_trials(other_study)
    # A trial whose worker ended before its first heartbeat is not stale to Optuna, ever.
    for trial in other_study.get_trials(states=(TrialState.RUNNING,)):
        other_study.tell(trial.number, state=TrialState.FAIL)
    waiting = other_study.get_trials(states=(TrialState.WAITING,))
    other_study.optimize(worker.objective, n_trials=len(waiting) + 1)
    check_numbers(other_study.trials)


class Killed(Exception):
    """As if the worker were."""


@pytest.mark.parametrize("stage", worker.STAGES)
def test_a_retry_is_chosen_as_any_other_trial(stage: str) -> None:
    """What a trial that died has left in its attributes does not count for its retry."""
    with_attributes, without = (_retried(stage, keep=keep) for keep in (True, False))
    assert with_attributes == without


def _retried(stage: str, *, keep: bool) -> list[dict[str, Any]]:
    """Parameters of the retry of a trial, and of one that was begun meanwhile.

    Args:
        stage: that the trial had come to.
        keep: whether its attributes are copied to the retry, as Optuna does; if not, only those
            that say of which trial it is one.
    """

    def stop() -> None:
        if len(study.trials) == worker.N_STARTUP + 2:  # type: ignore[attr-defined]
            raise Killed

    study = optuna.create_study(
        storage=InMemoryStorage(), sampler=worker.StoppingSampler(stage, stop)
    )
    study.optimize(worker.objective, n_trials=worker.N_STARTUP + 1)
    study.optimize(lambda trial: worker.objective(trial, stage, stop), n_trials=1, catch=Killed)
    failed = study.trials[-1]
    assert failed.state == TrialState.FAIL
    assert len(failed.params) == {"half": 1, "whole": 2}.get(stage, 0)
    if keep:
        RetryHeartbeatStaleTrialCallback()(study, failed)
    else:
        again = create_trial(
            state=TrialState.WAITING,
            params=failed.params,
            distributions=failed.distributions,
            system_attrs={"failed_trial": failed.number, "retry_history": [failed.number]},
        )
        study.add_trial(again)
    retry = study.ask()
    assert retry.number == failed.number + 1
    meanwhile = study.ask()
    for trial in (meanwhile, retry):
        worker.objective(trial)
    assert retry.params.items() >= failed.params.items()
    return [retry.params, meanwhile.params]
