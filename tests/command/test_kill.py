"""`optuna-llmbo search`, killed at random moments."""

from __future__ import annotations

from collections import Counter
import contextlib
import json
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
from optuna_llmbo.command.folders import has_ended_well
from tests.cli.test_command import arguments
from tests.cli.test_command import write
from tests.command.processes import begin
from tests.command.processes import is_alive
from tests.command.processes import running_of
from tests.command.processes import wait_until


N_TRIALS, N_KILLS = 24, 10
HEARTBEAT = 1


class Killed:
    """A search in the current folder, two trials at once, and what it leaves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = folder / "ledger.jsonl"
        write(
            {"mode": "children", "seconds_a_step": 0.4, "max_steps": 4, "ledger": str(self.ledger)}
        )

    def begin(self) -> Any:
        return begin(
            *arguments(
                "--quiet", "--parallel", 2, trials=N_TRIALS, heartbeat=HEARTBEAT, grace="0.2"
            )
        )

    @property
    def trials(self) -> list[FrozenTrial]:
        return optuna.load_study(study_name="search", storage="sqlite:///search.db").trials

    def numbers(self, state: TrialState) -> set[int]:
        with contextlib.suppress(Exception):  # there is no study yet, or it is being made
            return {trial.number for trial in self.trials if trial.state is state}
        return set()

    def lines(self, *what: str) -> list[dict[str, Any]]:
        """The lines of the ledger that are one of these, in the order of time."""
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return [one for one in map(json.loads, lines) if one["what"] in what]

    def left_running(self) -> list[int]:
        """The commands, what they started, and what stands between."""
        files = list(self.folder.glob("runs/*/output/processes"))
        started = {process for file in files for process in json.loads(file.read_text())}
        return [*running_of(self.folder), *filter(is_alive, started)]


@pytest.mark.slow
def test_killed_ten_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    search, rng = Killed(tmp_path), random.Random(0)
    n_running = 0
    for _ in range(N_KILLS):
        before = len(search.lines("begins"))
        process = search.begin()
        with contextlib.suppress(AssertionError):  # all places may be those of killed trials
            wait_until(lambda: len(search.lines("begins")) > before, 20)  # noqa: B023
        time.sleep(rng.uniform(0.0, 2.0))
        n_running += bool(search.left_running())
        process.kill()
        assert process.wait() in (0, -signal.SIGKILL)
        wait_until(lambda: not search.left_running())
        time.sleep(rng.uniform(0.0, 1.0) * HEARTBEAT)
    assert n_running >= N_KILLS // 2
    for _ in range(8):  # what was killed is taken up once its heartbeat is old
        assert search.begin().wait() == 0
        if not search.numbers(TrialState.RUNNING):
            break
        time.sleep(3 * HEARTBEAT)

    trials = search.trials
    by_state = Counter(trial.state for trial in trials)
    finished = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(finished) == N_TRIALS and not by_state[TrialState.RUNNING]
    assert by_state[TrialState.FAIL] >= 3
    params = [tuple(trial.params.values()) for trial in finished]
    assert len(set(params)) == N_TRIALS
    assert sum(bool(trial.user_attrs["is_default"]) for trial in finished) == 1
    _check_retries(trials)
    _check_ledger(search, finished)
    assert not search.left_running()


def _check_retries(trials: list[FrozenTrial]) -> None:
    """Each trial whose search died was retried, unless that was done often enough."""
    retried = {n for trial in trials for n in trial.system_attrs.get("retry_history", ())}
    failed = {trial.number for trial in trials if trial.state is TrialState.FAIL}
    assert retried <= failed
    histories = [trials[n].system_attrs.get("retry_history") for n in failed - retried]
    assert all(len(one) == MAX_RETRIES for one in histories if one is not None)
    assert histories.count(None) <= 1  # one that was killed before its retry was queued


def _check_ledger(search: Killed, finished: list[FrozenTrial]) -> None:
    """No folder saw two commands, and none began with a configuration that had come to its end.

    Two may run at once where the machine was so busy that a search missed its heartbeats and was
    taken for dead. A program that has written its last line may still be stopped before it exits:
    that is not an end.
    """
    begun = [line["folder"] for line in search.lines("begins")]
    assert len(set(begun)) == len(begun)
    ends, ended = [], set()
    for line in search.lines("begins", "ends"):
        params = tuple(line["params"])
        if line["what"] == "begins":
            assert params not in ended
        elif has_ended_well(Path(line["folder"]).parent):
            ended.add(params)
            ends.append(line)
    losses = {line["folder"]: line["loss"] for line in ends}
    used = [trial.user_attrs["folder"] for trial in finished]
    assert len(set(used)) == len(used)
    for trial in finished:
        if trial.state is TrialState.COMPLETE:
            assert trial.value == losses[f"{trial.user_attrs['folder']}/output"]
