"""The limits of a trial's time, by a clock that is set by hand."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.trial import FixedTrial
from optuna.trial import TrialState
import pytest

from optuna_llmbo._util.duration import exact_duration
from optuna_llmbo.errors import InputError
from optuna_llmbo.study import time_limits
from optuna_llmbo.study.outcome import outcome_of
from optuna_llmbo.study.time_limits import SearchTimedOut
from optuna_llmbo.study.time_limits import TimeLimits
from optuna_llmbo.study.time_limits import TrialTimedOut


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time_limits.time, "monotonic", lambda: now[0])  # type: ignore[attr-defined]
    return now


def test_within_the_limits_nothing_happens(clock: list[float]) -> None:
    trial = FixedTrial({})
    TimeLimits().check(trial, 0.0)
    TimeLimits(trial_seconds=100.1, ends_at=100.1).check(trial, 0.0)
    assert trial.user_attrs == {}


def test_a_trial_over_its_time_is_infeasible(clock: list[float]) -> None:
    limits = TimeLimits(trial_seconds=90)
    trial = FixedTrial({})
    limits.check(trial, 10.1)
    clock[0] = 100.1
    with pytest.raises(TrialTimedOut, match="over the time limit of a trial, 1 min 30 s"):
        limits.check(trial, 10.1)
    reason = "over the time limit of a trial, 1 min 30 s"
    assert trial.user_attrs == {"infeasible": True, "pruned_reason": reason}


def test_in_a_study_a_trial_over_its_time_is_pruned(clock: list[float]) -> None:
    def objective(trial: optuna.Trial) -> float:
        trial.report(1.0, 50)
        TimeLimits(trial_seconds=1.0).check(trial, 0.0)
        return 0.0

    study = optuna.create_study()
    study.optimize(objective, n_trials=1)
    assert study.trials[0].state is TrialState.PRUNED
    assert outcome_of(study.trials[0]) == "infeasible"


def test_the_end_of_the_search_comes_first(clock: list[float]) -> None:
    """A trial that is stopped by it says nothing of its configuration."""
    trial = FixedTrial({})
    with pytest.raises(SearchTimedOut):
        TimeLimits(trial_seconds=1.0, ends_at=100.0).check(trial, 0.0)
    assert trial.user_attrs == {"interrupted": True}


def test_processes_that_train_together_stop_together(clock: list[float]) -> None:
    """Also where the clock of this one has not come so far; all of them ask, each time."""
    asked: list[bool] = []

    def other_is_late(here: bool) -> bool:
        asked.append(here)
        return len(asked) == 2

    limits = TimeLimits(trial_seconds=200.0)
    limits.check(FixedTrial({}), 0.0, agree=other_is_late)
    with pytest.raises(TrialTimedOut):
        limits.check(FixedTrial({}), 0.0, agree=other_is_late)
    assert asked == [False, False]


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), "10m"])
def test_no_time(seconds: Any) -> None:
    with pytest.raises(InputError, match="trial_timeout=.*: expected the seconds"):
        TimeLimits(trial_seconds=seconds)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(600, "10 min"), (5400, "1 h 30 min"), (90, "1 min 30 s"), (2.5, "2.5 s"), (7200.0, "2 h")],
)
def test_limits_are_written_as_they_are(seconds: float, text: str) -> None:
    assert exact_duration(seconds) == text
