"""`optuna-llmbo tune`, killed at random moments."""

from __future__ import annotations

from collections import Counter
import contextlib
import json
import multiprocessing
from pathlib import Path
import random
import signal
import time
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from optuna_llmbo.cli.storages import MAX_RETRIES
from tests.lora.conftest import rows


N_TRIALS, N_KILLS = 24, 10
HEARTBEAT = 1


def tune(arguments: list[str]) -> None:
    """In a process of its own."""
    import torch

    from optuna_llmbo import cli

    torch.set_num_threads(1)
    cli.app(arguments)


class Search:
    """`optuna-llmbo tune` in a process that can be killed, and its study."""

    def __init__(self, place: Path, tiny_llm: Path, **options: object) -> None:
        data, self.url = place / "train.jsonl", f"sqlite:///{place}/study.db"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows(60)))
        shared = {
            "model": tiny_llm, "train": data, "proxy": 0.9, "storage": self.url,
            "heartbeat": HEARTBEAT, "device": "cpu",
        }  # fmt: skip
        words = [
            str(x) for name, value in (shared | options).items() for x in (f"--{name}", value)
        ]
        self._arguments = ["tune", *words]
        self._context = multiprocessing.get_context("forkserver")
        modules = ["optuna_llmbo.cli", "optuna_llmbo.sampler", "peft", "torch"]
        self._context.set_forkserver_preload(modules)

    @property
    def study(self) -> optuna.Study:
        return optuna.load_study(study_name="lora", storage=self.url)

    def begin(self) -> Any:
        process = self._context.Process(target=tune, args=(self._arguments,))
        process.start()
        return process

    def running(self, first: int = 0) -> list[FrozenTrial]:
        """Of the trials from a number on."""
        with contextlib.suppress(Exception):  # there is no study yet, or it is being made
            return [t for t in self.study.trials[first:] if t.state is TrialState.RUNNING]
        return []


@pytest.mark.slow
def test_killed_ten_times(tmp_path: Path, tiny_llm: Path) -> None:
    search = Search(tmp_path, tiny_llm, trials=N_TRIALS, epochs=4, folder=tmp_path / "trials")
    rng, n_before = random.Random(0), 0
    for _ in range(N_KILLS):
        with contextlib.suppress(Exception):
            n_before = len(search.study.trials)
        process = search.begin()
        while process.is_alive() and not search.running(n_before):
            time.sleep(0.05)
        process.join(rng.uniform(0.0, 1.5))
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
    for _ in range(6):  # what the last kill has left is taken up once its heartbeat is old
        process = search.begin()
        process.join()
        assert process.exitcode == 0
        if not search.running():
            break
        time.sleep(3 * HEARTBEAT)

    trials = search.study.trials
    states = Counter(trial.state for trial in trials)
    finished = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(finished) >= N_TRIALS and states[TrialState.RUNNING] == 0
    assert [trial.number for trial in trials] == list(range(len(trials)))
    params = [tuple(sorted(trial.params.items())) for trial in finished]
    assert len(set(params)) == len(params)
    retried = {n for t in trials for n in t.system_attrs.get("retry_history", ())}
    failed = {trial.number for trial in trials if trial.state == TrialState.FAIL}
    assert failed and failed >= retried
    given_up = [trial for trial in trials if trial.number in failed - retried]
    # One that was killed between failing a trial and queueing its retry leaves it without: another
    # trial takes its place.
    histories = [trial.system_attrs.get("retry_history") for trial in given_up]
    assert all(len(history) == MAX_RETRIES for history in histories if history is not None)
    assert histories.count(None) <= 1
    assert all(trial.user_attrs["steps"] > 0 for trial in finished)
    assert sum(bool(trial.user_attrs["is_default"]) for trial in finished) == 1
    kept = [path.parent.name for path in (tmp_path / "trials").glob("trial-*/adapter")]
    assert kept == [f"trial-{search.study.best_trial.number}"]


@pytest.mark.slow
def test_killed_while_several_train(tmp_path: Path, tiny_llm: Path) -> None:
    search = Search(
        tmp_path, tiny_llm, trials=4, epochs=8, parallel=2, sampler="random", pruner="none"
    )
    process = search.begin()
    while process.is_alive() and sum(bool(trial.params) for trial in search.running()) < 2:
        time.sleep(0.05)
    process.kill()
    process.join()
    killed = {trial.number for trial in search.running()}
    assert killed
    time.sleep(3 * HEARTBEAT)
    process = search.begin()
    process.join()
    assert process.exitcode == 0

    trials = search.study.trials
    states = Counter(trial.state for trial in trials)
    assert states == {TrialState.COMPLETE: 4, TrialState.FAIL: len(killed)}
    assert {t.number for t in trials if t.state is TrialState.FAIL} == killed
    retried = [n for t in trials for n in t.system_attrs.get("retry_history", ())]
    assert sorted(retried) == sorted(killed)
