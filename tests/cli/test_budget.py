"""What is said of a search's cost, and how time ends it, on clocks that are set by hand."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import io
import json
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
import pytest
from rich.console import Console
from typer.testing import Result

from optuna_llmbo.cli import live
from optuna_llmbo.cli import search
from optuna_llmbo.cli.budget import Budget
from optuna_llmbo.cli.budget import Estimate
from optuna_llmbo.cli.live import LiveView
from optuna_llmbo.cli.search import Search
from optuna_llmbo.cli.terminal import Output
from optuna_llmbo.study import time_limits
from optuna_llmbo.study.progress import Goal
from optuna_llmbo.study.time_limits import TimeLimits
from optuna_llmbo.study.training_progress import TrainingProgress
from tests.cli.test_cli import data as data
from tests.cli.test_cli import load
from tests.cli.test_cli import tune as tune


Tune = Callable[..., Result]
LOSS = (Goal("loss", "minimize"),)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the search, the trials and the live view see."""
    now = [0.0]
    for module in (search, time_limits, live):
        monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


# --- what is said ---


@pytest.mark.parametrize(
    ("budget", "n_there", "text"),
    [
        (Budget(30), 0, "A trial takes about 40 s: 30 trials take about 20 min."),
        (Budget(30), 29, "A trial takes about 40 s: 1 further trial takes about 40 s."),
        (Budget(30, 7200), 0,
         "A trial takes about 40 s: 30 trials take about 20 min; 2 h has room for them."),
        (Budget(30, 600), 0,
         "A trial takes about 40 s: 30 trials take about 20 min; about 15 of 30 fit into 10 min."),
        (Budget(30, 610), 0,  # the one that runs then ends
         "A trial takes about 40 s: 30 trials take about 20 min; about 16 of 30 fit into "
         "10 min 10 s."),
        (Budget(30, 610, stops=True), 20,
         "A trial takes about 40 s: 10 further trials take about 7 min; 10 min 10 s has room for "
         "them."),
        (Budget(30, 610, stops=True), 0,
         "A trial takes about 40 s: 30 trials take about 20 min; about 15 of 30 fit into "
         "10 min 10 s."),
        (Budget(30, 100, stops=True, at_once=4), 0,
         "A trial takes about 40 s: 30 trials take about 5 min; about 8 of 30 fit into "
         "1 min 40 s."),
        (Budget(30, 20, stops=True), 0,
         "A trial takes about 40 s: 30 trials take about 20 min; about 0 of 30 fit into 20 s."),
    ],
)  # fmt: skip
def test_what_a_trial_costs(budget: Budget, n_there: int, text: str) -> None:
    assert str(Estimate(budget, 40.0, n_there)) == text


@pytest.mark.parametrize(
    ("budget", "n_there", "trial_seconds", "text"),
    [
        (Budget(30), 0, None, "Budget: 30 trials."),
        (Budget(30, 7200), 10, 600.0,
         "Budget: 20 further trials, 2 h (a trial that runs then may end), 10 min a trial."),
        (Budget(1, 90, stops=True), 0, None,
         "Budget: 1 trial, 1 min 30 s (a trial that runs then is stopped)."),
    ],
)  # fmt: skip
def test_what_is_known_before(
    budget: Budget, n_there: int, trial_seconds: float | None, text: str
) -> None:
    assert budget.known(n_there, trial_seconds) == text


# --- the time left ---


def view_of(budget: Budget, deadline: float | None, limits: TimeLimits | None = None) -> LiveView:
    return LiveView(Console(quiet=True), optuna.create_study(), LOSS, budget, deadline, limits)


def left(view: LiveView) -> str:
    return ", ".join(view._left())


def test_before_a_trial_is_measured_the_limits_bound_the_time_left(clock: list[float]) -> None:
    assert left(view_of(Budget(10), None)) == ""
    assert left(view_of(Budget(10), None, TimeLimits(60))) == "at most 10 min left"
    assert (
        left(view_of(Budget(10, 300, stops=True), 300.0, TimeLimits(60))) == "at most 5 min left"
    )
    view = view_of(Budget(10, 300), 300.0, TimeLimits(600))
    view.on_step(TrainingProgress(0, None, None))
    assert left(view) == "at most 10 min left"  # what begins before the end may take as long
    view = view_of(Budget(10, 300), 300.0)
    view.on_step(TrainingProgress(0, None, None))
    assert left(view) == ""


def test_no_trial_is_expected_to_take_longer_than_it_may(clock: list[float]) -> None:
    view = view_of(Budget(10), None, TimeLimits(60))
    view.on_step(TrainingProgress(0, 0.5, 1.0))
    clock[0] = 10.0
    assert left(view) == "about 3 min left"  # 9.5 trials of 20 s each
    clock[0] = 55.0
    assert left(view) == "about 10 min left"  # of 60 s instead of 110 s each


@pytest.mark.parametrize(("stops", "text"), [(True, "about 5 s left"), (False, "about 20 s left")])
def test_the_end_of_the_search(clock: list[float], stops: bool, text: str) -> None:
    """Trials that run at its end are stopped, or still need what is left of them."""
    view = view_of(Budget(10, 25, stops), 25.0)
    view.on_step(TrainingProgress(0, 0.5, 1.0))
    clock[0] = 20.0
    assert left(view) == text


def test_a_trial_of_unknown_progress_is_shown() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    view = view_of(Budget(3), None)
    view.on_step(TrainingProgress(0, None, None))
    view.on_step(TrainingProgress(1, None, 2.5))
    view.on_step(TrainingProgress(2, 0.25, None))
    console.print(view)
    shown = {line[:2]: line for line in console.export_text().splitlines() if line[:1] == "#"}
    assert "running" in shown["#0"] and "loss" not in shown["#0"]
    assert "running" in shown["#1"] and "training loss 2.500" in shown["#1"]
    assert "25%" in shown["#2"] and "loss" not in shown["#2"]


def test_reports_that_are_no_percentages(capsys: pytest.CaptureFixture[str]) -> None:
    study = optuna.create_study()
    study.add_trial(
        optuna.trial.create_trial(state=TrialState.PRUNED, intermediate_values={700: 2.0})
    )
    view = LiveView(Console(width=200), study, LOSS, Budget(3), step="step {}")
    view.on_trial(study, study.trials[0])
    assert "pruned 2.0000 at step 700 " in capsys.readouterr().out


# --- a search of any objective ---


class Steps:
    """An objective with three steps of 10 s; it has no default and no base model."""

    goals = (Goal("error", "minimize", "error on the test bench"),)
    default_params = None
    base_loss = None

    def __init__(self, clock: list[float], seconds: float | None = None) -> None:
        self.progress: Callable[[TrainingProgress], None] | None = None
        self.limits = TimeLimits(seconds)
        self._clock = clock

    def __call__(self, trial: optuna.Trial) -> float:
        started = self._clock[0]
        x = trial.suggest_float("x", 0, 1)
        for _ in range(3):
            self._clock[0] += 10.0
            assert self.progress is not None
            self.progress(TrainingProgress(trial.number, None, None))
            self.limits.check(trial, started)
        return x


def run(
    objective: Steps, budget: Budget, study: optuna.Study, **more: Any
) -> tuple[str, optuna.Study]:
    sampler = optuna.samplers.RandomSampler(seed=0)
    made = Search(study, objective, Output(), budget, lambda number: sampler, **more)
    return made.run(), study


@pytest.fixture
def study() -> Iterator[optuna.Study]:
    yield optuna.create_study()


def test_any_objective_can_be_searched(
    clock: list[float], study: optuna.Study, capsys: pytest.CaptureFixture[str]
) -> None:
    ended, _ = run(Steps(clock), Budget(3, 7200), study)
    assert ended == "complete" and len(study.trials) == 3
    shown = capsys.readouterr().out
    assert "The search is to minimize error on the test bench." in shown
    assert "Budget: 3 trials, 2 h (a trial that runs then may end)." in shown
    assert shown.count("A trial takes about") == 1 and "3 trials take about" in shown


@pytest.mark.parametrize("stops", [False, True])
def test_the_time_of_a_search(clock: list[float], study: optuna.Study, stops: bool) -> None:
    """A trial takes 30 s. After 40 s the second one ends, at 60 s, or stops, at 40 s."""
    ended, _ = run(Steps(clock), Budget(5, 40, stops), study)
    assert ended == "timeout" and len(study.trials) == 2
    last = study.trials[1]
    assert clock[0] == (40.0 if stops else 60.0)
    assert last.state is (TrialState.FAIL if stops else TrialState.COMPLETE)
    assert last.user_attrs.get("interrupted", False) is stops
    ended, _ = run(Steps(clock), Budget(3), study)  # the same command goes on
    assert ended == "complete" and len(study.trials) == (4 if stops else 3)


def test_trials_over_their_time_are_results(clock: list[float], study: optuna.Study) -> None:
    """Unlike failures they count, and do not end the search."""
    ended, _ = run(Steps(clock, seconds=15), Budget(5), study)
    assert ended == "complete" and len(study.trials) == 5 and clock[0] == 5 * 20.0
    assert all(trial.user_attrs["infeasible"] for trial in study.trials)


def test_another_way_to_run_trials(clock: list[float], study: optuna.Study) -> None:
    seen: list[int] = []

    def two_at_once(study: optuna.Study, begin: search.Begin, callbacks: Any) -> None:
        while (first := begin()) is not None:
            pair = [first] if (second := begin()) is None else [first, second]
            for trial in reversed(pair):
                told = study.tell(trial, 1.0)
                for callback in callbacks:
                    callback(study, told)

    ended, _ = run(
        Steps(clock), Budget(3), study,
        run=two_at_once, callbacks=[lambda _, trial: seen.append(trial.number)],
    )  # fmt: skip
    assert ended == "complete" and seen == [1, 0, 2]


# --- tune ---


@pytest.fixture
def ticking(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock; each optimizer step of a trial takes 1,000 s."""
    step = LiveView.on_step

    def later(self: LiveView, progress: Any) -> None:
        clock[0] += 1000.0
        step(self, progress)

    monkeypatch.setattr(LiveView, "on_step", later)
    return clock


@pytest.mark.parametrize("parallel", [1, 2])
def test_tune_stops_running_trials_when_time_is_over(
    tune: Tune, tmp_path: Path, ticking: list[float], parallel: int
) -> None:
    """Within a step, and so within a report; the same command goes on."""
    more = {"timeout": "30m", "parallel": parallel}
    result = tune("--json", "--stop-at-timeout", trials=5, **more)
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[0]["timeout"] == 1800.0 and events[0]["stops_at_timeout"] is True
    assert events[-1]["ended"] == "timeout" and events[-1]["interrupted"] is False
    assert ticking[0] == (2000.0 if parallel == 1 else 3000.0)
    trials = load(tmp_path).trials
    stopped = [trial for trial in trials if trial.state is TrialState.FAIL]
    assert len(stopped) == parallel
    assert all(trial.user_attrs["interrupted"] and trial.user_attrs["steps"] for trial in stopped)
    outcomes = [event["outcome"] for event in events if event["event"] == "trial"]
    assert outcomes == ["interrupted"] * parallel
    again = tune(trials=1)
    assert again.exit_code == 0, again.output
    assert load(tmp_path).trials[-1].user_attrs["is_default"]


@pytest.mark.parametrize("parallel", [1, 2])
def test_tune_stops_trials_that_take_too_long(
    tune: Tune, tmp_path: Path, ticking: list[float], parallel: int
) -> None:
    result = tune("--json", trials=3, trial_timeout="15m", parallel=parallel)
    assert result.exit_code == 0, result.output
    trials = load(tmp_path).trials
    assert len(trials) == 3 and {trial.state for trial in trials} == {TrialState.PRUNED}
    reason = "over the time limit of a trial, 15 min"
    assert {trial.user_attrs["pruned_reason"] for trial in trials} == {reason}
    assert all(trial.user_attrs["steps"] == 1 for trial in trials)
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[0]["trial_timeout"] == 900.0 and events[0]["timeout"] is None
    assert [event["event"] for event in events] == ["start", *["trial"] * 3, "summary"]
    assert events[1]["outcome"] == "infeasible" and events[1]["reason"] == reason


def test_tune_says_what_a_trial_costs(tune: Tune, tmp_path: Path) -> None:
    result = tune(trials=2, timeout="2h", trial_timeout="1h")
    budget = "Budget: 2 trials, 2 h (a trial that runs then may end), 1 h a trial."
    assert budget in result.stdout
    assert "2 h has room for them." in result.stdout
    lines = result.stdout.splitlines()
    (cost,) = [i for i, line in enumerate(lines) if line.startswith("A trial takes about")]
    assert lines[cost - 1].startswith("trial  1/2 #0")
    first = load(tmp_path).trials[0].user_attrs["seconds"]
    events = [json.loads(line) for line in tune("--json", trials=3).stdout.splitlines()]
    (estimate,) = [event for event in events if event["event"] == "estimate"]
    assert estimate["trials"] == estimate["fitting"] == 1 and first > 0
    last = load(tmp_path).trials[2].user_attrs["seconds"]
    assert estimate["trial_seconds"] == estimate["seconds"] == last


def test_nothing_to_stop_at(tune: Tune) -> None:
    result = tune("--stop-at-timeout")
    assert result.exit_code == 2
    assert "--stop-at-timeout: expected a --timeout to stop at, got none." in result.stderr
    late = tune(trial_timeout="soon")
    assert late.exit_code == 2 and "'soon' is no duration" in late.stderr
