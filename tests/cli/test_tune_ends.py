"""How `optuna-llmbo tune` ends: by its trials, its time, failures, and with several workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
import json
import multiprocessing
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
import pytest
from typer.testing import Result

from optuna_llmbo.cli import search
from optuna_llmbo.cli.duration import seconds_of
from optuna_llmbo.cli.live import LiveView
from optuna_llmbo.cli.options import SamplerName
from optuna_llmbo.cli.storages import read_storage
from optuna_llmbo.cli.studies import for_trial
from optuna_llmbo.cli.studies import make_sampler
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.objective import LoRAObjective
from optuna_llmbo.study.outcome import TrialCrashed
from tests.cli.test_cli import data as data
from tests.cli.test_cli import load
from tests.cli.test_cli import tune as tune
from tests.lora.conftest import rows
from tests.lora.test_kill import tune as in_a_process


Tune = Callable[..., Result]
NAN = float("nan")


def ends(*answers: Any) -> Callable[[LoRAObjective, optuna.Trial], float]:
    """In place of training: values, or exceptions that are raised, one a trial."""
    left = iter(answers)

    def run(self: LoRAObjective, trial: optuna.Trial) -> float:
        trial.suggest_float("learning_rate", 1e-6, 5e-3, log=True)
        answer = next(left)
        if isinstance(answer, str):
            trial.set_user_attr("failed_reason", answer)
            return NAN
        if isinstance(answer, BaseException):
            raise answer
        return float(answer)

    return run


# --- failures ---


def test_failed_trials_are_replaced_and_said(
    tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = TrialCrashed("no such kernel")
    run = ends(1.0, "the metric 'f1' is nan.", crash, 2.0, "the metric 'f1' is nan.", 3.0)
    monkeypatch.setattr(LoRAObjective, "__call__", run)
    result = tune(trials=3)
    assert result.exit_code == 0, result.output
    states = Counter(trial.state for trial in load(tmp_path).trials)
    assert states == {TrialState.COMPLETE: 3, TrialState.FAIL: 3}
    assert "failed (the metric 'f1' is nan.)" in result.stdout
    assert "trial #1 failed:\nthe metric 'f1' is nan." in result.stderr


def test_three_failures_in_a_row_end_the_search(
    tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ends(1.0, *["the metric 'f1' is nan."] * 3, 2.0)
    monkeypatch.setattr(LoRAObjective, "__call__", run)
    result = tune("--json", trials=5)
    assert result.exit_code == 1
    assert "error: 3 trials failed one after another." in result.stderr
    events = [json.loads(line) for line in result.stdout.splitlines()]
    trials = [event for event in events if event["event"] == "trial"]
    assert [event["reason"] for event in trials[1:4]] == ["the metric 'f1' is nan."] * 3
    assert len(load(tmp_path).trials) == 4


def test_what_cannot_be_shown_costs_the_line_only(
    tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings_logged: list[str]
) -> None:
    def broken(self: LiveView, *_: Any) -> None:
        raise UnicodeError("no such character")

    monkeypatch.setattr(LiveView, "on_trial", broken)
    monkeypatch.setattr(LiveView, "on_step", broken)
    result = tune(trials=2)
    assert result.exit_code == 0, result.output
    states = {trial.state for trial in load(tmp_path).trials}
    assert states == {TrialState.COMPLETE} and "best found" in result.stdout
    shown = [message for message in warnings_logged if "a trial cannot be shown" in message]
    assert len(shown) == 1


def test_a_closed_pipe_ends_the_search(
    tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(self: LiveView, *_: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(LiveView, "on_trial", closed)
    assert tune(trials=3).exit_code == 1
    assert len(load(tmp_path).trials) == 1


def test_a_trial_that_another_worker_has_given_up(
    warnings_logged: list[str],
) -> None:
    study = optuna.create_study()
    begun = iter([study.ask(), study.ask(), study.ask(), None])

    def run(trial: optuna.Trial) -> float:
        if trial.number < 2:
            study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        if trial.number == 1:
            trial.set_user_attr("steps", 3)  # as a trial does that goes on training
        return 1.0

    search.run_trials(study, run, lambda: next(begun))
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.FAIL, TrialState.FAIL, TrialState.COMPLETE]
    assert len(warnings_logged) == 2
    assert all("was given up by another worker" in message for message in warnings_logged)


# --- time ---


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90m", 5400), ("2h", 7200), ("1h30m", 5400), ("1d", 86400),
     ("45S", 45), (" 10s ", 10)],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0h", "-3", "5x", "h", "2 h 3", "nan", "inf", "1:30"])
def test_no_durations(text: str) -> None:
    with pytest.raises(InputError, match="is no duration: expected seconds, or a number with d"):
        seconds_of(text)


@pytest.mark.parametrize("parallel", [1, 2])
def test_no_trial_begins_when_time_is_over(
    tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parallel: int
) -> None:
    """The trials that run then end; the same command goes on."""
    clock = [0.0]
    monkeypatch.setattr(search.time, "monotonic", lambda: clock[0])  # type: ignore[attr-defined]
    step = LiveView.on_step

    def later(self: LiveView, progress: Any) -> None:
        clock[0] += 1000.0
        step(self, progress)

    monkeypatch.setattr(LiveView, "on_step", later)
    result = tune("--json", trials=5, timeout="30m", parallel=parallel)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout.splitlines()[-1])
    n = len(load(tmp_path).trials)
    assert parallel <= n < 5 and summary["counts"]["complete"] == n
    assert summary["ended"] == "timeout" and summary["interrupted"] is False
    monkeypatch.setattr(LiveView, "on_step", step)
    result = tune(trials=n + 1, timeout="30m", parallel=parallel)
    assert f"Resuming: {n} of {n + 1} trials are there." in result.stdout
    assert len(load(tmp_path).trials) == n + 1


def test_enough_time_changes_nothing(tune: Tune) -> None:
    result = tune("--json", trials=1, timeout="2h")
    assert json.loads(result.stdout.splitlines()[-1])["ended"] == "complete"
    late = tune(trials=5, timeout="1ms")
    assert late.exit_code == 2 and "'1ms' is no duration" in late.stderr


# --- several workers ---


def test_another_worker_runs_the_last_trial(tune: Tune, tmp_path: Path) -> None:
    assert tune(trials=1).exit_code == 0
    running = load(tmp_path).ask()
    result = tune(trials=2)
    assert result.exit_code == 0
    assert "1 of 2 trials are there; other workers run the rest." in result.stdout
    assert len(load(tmp_path).trials) == 2
    load(tmp_path).tell(running, state=TrialState.FAIL)
    result = tune("--json", trials=2)
    assert json.loads(result.stdout.splitlines()[-1])["ended"] == "complete"
    assert len(load(tmp_path).trials) == 3


@pytest.mark.parametrize("name", [SamplerName.random, SamplerName.tpe, SamplerName.gp])
def test_each_trial_has_its_own_random_numbers(name: SamplerName) -> None:
    """So that workers that start at once, and a resumed study, do not try the same."""

    def params(seed: int, number: int) -> float:
        begun = make_sampler(name, seed=seed, n_objectives=1, llm=None, task="")
        study = optuna.create_study(sampler=for_trial(name, begun, seed, number))
        return study.ask().suggest_float("x", 0, 1)

    tried = [params(seed, number) for seed in range(3) for number in range(3)]
    assert len(set(tried)) == 9
    assert params(1, 2) == tried[5]


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["study.db", "study.log"])
def test_two_workers_that_start_at_once(tmp_path: Path, tiny_llm: Path, storage: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(60)))
    options = {
        "model": tiny_llm, "train": path, "proxy": 0.9, "trials": 5, "study": "two",
        "storage": tmp_path / storage, "device": "cpu", "folder": tmp_path / "trials",
    }  # fmt: skip
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["optuna_llmbo.cli.search", "optuna_llmbo.sampler", "peft"])
    workers = [context.Process(target=in_a_process, args=(["tune", *words],)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    study = optuna.load_study(study_name="two", storage=read_storage(str(tmp_path / storage)))
    trials = [trial for trial in study.trials if trial.state is not TrialState.WAITING]
    assert len(trials) == 5 and all(trial.state.is_finished() for trial in trials)
    assert sum(bool(trial.user_attrs["is_default"]) for trial in trials) == 1
    assert len({json.dumps(trial.params) for trial in trials}) == 5
    kept = [path.parent.name for path in (tmp_path / "trials").glob("trial-*/adapter")]
    assert f"trial-{study.best_trial.number}" in kept
