"""Trials that are stopped by the time, on a clock that is set by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.distributions import IntDistribution
from optuna.trial import FixedTrial
from optuna.trial import TrialState
import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.lora import optimize_packed
from optuna_llmbo.lora import TrainingProgress
from optuna_llmbo.lora.run import Run
from optuna_llmbo.study import time_limits
from optuna_llmbo.study.outcome import outcome_of
from optuna_llmbo.study.time_limits import SearchTimedOut
from optuna_llmbo.study.time_limits import TimeLimits


Make = Callable[..., LoRAObjective]
SPACE = {"batch_size": IntDistribution(6, 6)}  # four steps


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Each measurement takes 100 s, and nothing else takes any time."""
    now = [0.0]
    measured = Run._measured

    def slow(self: Run) -> tuple[float, ...]:
        now[0] += 100.0
        return measured(self)

    monkeypatch.setattr(time_limits.time, "monotonic", lambda: now[0])  # type: ignore[attr-defined]
    monkeypatch.setattr(Run, "_measured", slow)
    return now


@pytest.mark.parametrize("is_default", [True, False])
def test_a_trial_is_stopped_at_a_report(
    make_objective: Make, clock: list[float], is_default: bool
) -> None:
    """The default too; what it has reported is kept, and the next trial has its own time."""
    objective = make_objective(space={"rank": IntDistribution(4, 16), **SPACE}, trial_timeout=150)
    study = optuna.create_study()
    for _ in range(2):
        study.enqueue_trial({"rank": 16 if is_default else 4})
    study.optimize(objective, n_trials=2)
    for trial in study.trials:
        assert trial.state is TrialState.PRUNED and outcome_of(trial) == "infeasible"
        assert list(trial.intermediate_values) == [25, 50]
        assert trial.user_attrs["is_default"] is is_default
        assert trial.user_attrs["steps"] == 2 and trial.user_attrs["seconds"] == 200.0


def test_a_trial_with_its_last_report_keeps_its_value(
    make_objective: Make, clock: list[float]
) -> None:
    study = optuna.create_study()
    study.optimize(make_objective(space=SPACE, trial_timeout=350), n_trials=1)
    assert clock[0] == 400.0
    assert study.trials[0].state is TrialState.COMPLETE
    assert study.trials[0].value == study.trials[0].intermediate_values[100]


def test_the_end_of_the_search_is_no_crash(make_objective: Make, clock: list[float]) -> None:
    objective = make_objective(space=SPACE)
    objective.limits.ends_at = 200.0
    study = optuna.create_study()
    with pytest.raises(SearchTimedOut):
        study.optimize(objective, n_trials=2)
    (trial,) = study.trials
    assert trial.state is TrialState.FAIL and outcome_of(trial) == "interrupted"
    assert trial.user_attrs["steps"] == 2 and "traceback" not in trial.user_attrs
    objective.limits.ends_at = None
    params = objective.default_params
    assert objective(FixedTrial(params)) == make_objective(space=SPACE)(FixedTrial(params))


def packed(objective: LoRAObjective, *params: dict[str, Any]) -> tuple[optuna.Study, list[int]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for one in params:
        study.enqueue_trial(one)
    ended: list[int] = []
    optimize_packed(
        study, objective, len(params), len(params), [lambda _, trial: ended.append(trial.number)]
    )
    return study, ended


def test_trials_in_a_pack_are_stopped_one_by_one(make_objective: Make) -> None:
    """The second one by its own limit, while the first and the third go on."""
    objective = make_objective(space={"rank": IntDistribution(1, 8), **SPACE})

    def stop(progress: TrainingProgress) -> None:
        limit = 1e-9 if progress.trial_number == 1 else None
        objective.limits.trial_seconds = limit

    objective.progress = stop
    study, ended = packed(objective, {"rank": 2}, {"rank": 3}, {"rank": 4})
    assert ended == [1, 0, 2]
    assert [outcome_of(trial) for trial in study.trials] == ["complete", "infeasible", "complete"]
    assert study.trials[1].user_attrs["steps"] == 1
    lone = make_objective(space={"rank": IntDistribution(1, 8), **SPACE})
    alone = lone(FixedTrial(study.trials[2].params))
    assert study.trials[2].value == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("variant", ["lora", "pissa"])
def test_all_trials_in_a_pack_are_stopped_at_the_end(make_objective: Make, variant: str) -> None:
    """Also one that is trained alone while the others wait."""
    objective = make_objective(
        space={"variant": CategoricalDistribution(["lora", "pissa"]), **SPACE}
    )
    objective.limits.ends_at = 0.0  # long ago
    study, ended = packed(objective, {"variant": "lora"}, {"variant": variant})
    assert sorted(ended) == [0, 1]
    assert [outcome_of(trial) for trial in study.trials] == ["interrupted"] * 2
    assert all(trial.user_attrs["steps"] == 1 for trial in study.trials)


def test_a_trial_in_a_pack_that_its_progress_function_prunes(make_objective: Make) -> None:
    """Ends as it does outside of a pack, and no other one with it."""

    def stop(progress: TrainingProgress) -> None:
        if progress.trial_number == 0:
            raise optuna.TrialPruned

    study, _ = packed(make_objective(space=SPACE, progress=stop), {}, {})
    assert [trial.state for trial in study.trials] == [TrialState.PRUNED, TrialState.COMPLETE]


def test_no_time_for_a_trial(make_objective: Make) -> None:
    with pytest.raises(InputError, match=r"trial_timeout=0: expected the seconds"):
        make_objective(trial_timeout=0)
    assert make_objective(trial_timeout=2).limits == TimeLimits(trial_seconds=2)
