"""One bad measurement fails a trial at most, and never the search."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import numpy as np
import optuna
from optuna.distributions import IntDistribution
from optuna.trial import TrialState
import pytest
import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.lora.metrics import Custom
from optuna_llmbo.lora.metrics import Loss
from optuna_llmbo.lora.metrics.measure import as_number
from optuna_llmbo.lora.packed.parallel import optimize_packed
from optuna_llmbo.study.trial_facts import trial_facts


Make = Callable[..., LoRAObjective]
SPACE: dict[str, Any] = {"rank": IntDistribution(1, 8), "batch_size": IntDistribution(3, 3)}
NAN, INF = float("nan"), float("inf")
FINE = 0.5


class Answers:
    """A metric that returns what it is given, one after the other, and raises the exceptions.

    The first call is that of `prepare`, which finds nothing.
    """

    def __init__(self, *answers: Any) -> None:
        self._answers: Iterator[Any] = iter((FINE, *answers))

    def __call__(self, *_: Any) -> Any:
        answer = next(self._answers)
        if isinstance(answer, BaseException):
            raise answer
        return answer


class OwnMetric:
    """A metric of the user's own class."""

    name, direction = "own", "minimize"

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def check(self, *_: Any) -> None:
        self._function()

    def __call__(self, *about: Any) -> Any:
        return self._function()


def of_trials(warnings: list[str]) -> list[str]:
    """Without what is told of the data and the space."""
    return [warning for warning in warnings if warning.startswith("trial ")]


def run(objective: LoRAObjective, n_trials: int, **options: Any) -> list[optuna.trial.FrozenTrial]:
    study = optuna.create_study(
        directions=["minimize"] * len(objective.prepare().targets),
        sampler=optuna.samplers.RandomSampler(seed=0),
        **options,
    )
    study.optimize(objective, n_trials=n_trials)
    return study.trials


BAD = {
    "nan": (NAN, "returned nan"),
    "inf": (INF, "returned inf"),
    "None": (None, "returned None"),
    "a text": ("0.5", "returned '0.5'"),
    "two numbers": (torch.ones(2), "returned tensor"),
    "an error": (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
    "a mistake": (InputError("the sandbox did not start."), "the sandbox did not start"),
}


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD.keys())
def test_a_search_goes_on_after_a_bad_measurement(
    make_objective: Make, bad: Any, reason: str
) -> None:
    metric = Custom("score", "minimize", Answers(bad, 0.25))
    failed, fine = run(make_objective(space=SPACE, metric=metric, reports=1), 2)
    assert failed.state is TrialState.FAIL
    assert reason in failed.user_attrs["failed_reason"]
    assert "'score'" in failed.user_attrs["failed_reason"]
    assert trial_facts(failed).reason == failed.user_attrs["failed_reason"]
    assert (fine.state, fine.value) == (TrialState.COMPLETE, 0.25)
    assert "failed_reason" not in fine.user_attrs


@pytest.mark.parametrize("bad", [NAN, None, RuntimeError("no such kernel")])
def test_a_metric_of_the_users_own_class(make_objective: Make, bad: Any) -> None:
    answers = [FINE, FINE, bad, FINE, 0.25]  # prepare's check; then check and call of each trial
    failed, fine = run(
        make_objective(space=SPACE, metric=OwnMetric(Answers(*answers[1:])), reports=1), 2
    )
    assert failed.state is TrialState.FAIL
    assert "'own'" in failed.user_attrs["failed_reason"]
    assert (fine.state, fine.value) == (TrialState.COMPLETE, 0.25)


def test_one_of_several_metrics(make_objective: Make) -> None:
    metrics = [Loss(), Custom("score", "minimize", Answers(NAN, 0.25))]
    failed, fine = run(make_objective(space=SPACE, metric=metrics), 2)
    assert failed.state is TrialState.FAIL and failed.values is None
    assert fine.state is TrialState.COMPLETE and fine.values[1] == 0.25


@pytest.mark.parametrize("good", [np.float32(0.25), np.array([0.25]), torch.tensor(0.25)])
def test_numbers_of_other_libraries(make_objective: Make, good: Any) -> None:
    metric = Custom("score", "minimize", Answers(good))
    (trial,) = run(make_objective(space=SPACE, metric=metric, reports=1), 1)
    assert trial.value == 0.25
    assert as_number("score", good) == 0.25


def test_a_report_that_cannot_be_measured_is_left_out(
    make_objective: Make, warnings_logged: list[str]
) -> None:
    metric = Custom("score", "minimize", Answers(0.5, NAN, 0.3, 0.25))
    (trial,) = run(make_objective(space=SPACE, metric=metric, reports=4), 1)
    assert trial.state is TrialState.COMPLETE
    assert list(trial.intermediate_values.values()) == [0.5, 0.3, 0.25]
    (problem,) = trial.user_attrs["problems"]
    assert "No report at" in problem and "returned nan" in problem
    assert trial_facts(trial).reason == problem
    assert of_trials(warnings_logged) == [f"trial 0: {problem}"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [*BAD.values(), (torch.OutOfMemoryError("CUDA out of memory"), "CUDA out of memory")],
)
def test_an_extra_metric_costs_its_own_value_only(
    make_objective: Make, bad: Any, reason: str, warnings_logged: list[str]
) -> None:
    extra = {"extra": Answers(bad, 0.25), "other": lambda *_: 1}
    first, second = run(make_objective(space=SPACE, extra_metrics=extra), 2)
    assert first.state is second.state is TrialState.COMPLETE
    assert first.user_attrs["metrics"] == {"other": 1.0}
    assert second.user_attrs["metrics"] == {"extra": 0.25, "other": 1.0}
    (problem,) = first.user_attrs["problems"]
    assert "'extra'" in problem and reason.removeprefix("returned ") in problem
    assert of_trials(warnings_logged) == [f"trial 0: {problem}"]
    assert "problems" not in second.user_attrs


def test_extra_metrics_of_trials_that_train_at_once(make_objective: Make) -> None:
    def progress(_: Any) -> None:
        raise RuntimeError("the screen is gone")

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    extra = {"extra": Answers(NAN, 0.25, 0.5)}
    objective = make_objective(space=SPACE, extra_metrics=extra, progress=progress)
    optimize_packed(study, objective, 3, 2)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    assert sum(trial.user_attrs["metrics"] == {} for trial in study.trials) == 1
    assert all("the screen is gone" in trial.user_attrs["problems"][0] for trial in study.trials)


def test_a_progress_function_that_raises(make_objective: Make, warnings_logged: list[str]) -> None:
    def progress(_: Any) -> None:
        raise RuntimeError("the screen is gone")

    (trial,) = run(make_objective(space=SPACE, progress=progress), 1)
    assert trial.state is TrialState.COMPLETE and trial.user_attrs["steps"] > 1
    assert trial.user_attrs["problems"] == [
        "The progress function failed: RuntimeError: the screen is gone."
    ]
    assert len(of_trials(warnings_logged)) == 1


def test_a_progress_function_may_prune(make_objective: Make) -> None:
    def progress(_: Any) -> None:
        raise optuna.TrialPruned

    (trial,) = run(make_objective(space=SPACE, progress=progress), 1)
    assert trial.state is TrialState.PRUNED


class BrokenPruner(optuna.pruners.BasePruner):
    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        raise RuntimeError("no such rung")


def test_a_pruner_that_raises_prunes_nothing(make_objective: Make) -> None:
    objective = make_objective(space=SPACE, reports=2)
    (trial,) = run(objective, 1, pruner=BrokenPruner())
    assert trial.state is TrialState.COMPLETE and len(trial.intermediate_values) == 2
    assert trial.user_attrs["problems"] == [
        "The pruner failed and did not prune: RuntimeError: no such rung."
    ]


def test_a_keyboard_interrupt_in_a_metric_ends_the_search(make_objective: Make) -> None:
    for options in (
        {"metric": Custom("score", "minimize", Answers(KeyboardInterrupt()))},
        {"extra_metrics": {"extra": Answers(KeyboardInterrupt())}},
    ):
        study = optuna.create_study()
        with pytest.raises(KeyboardInterrupt):
            study.optimize(make_objective(space=SPACE, **options), n_trials=2)
        assert [trial.user_attrs.get("interrupted") for trial in study.trials] == [True]


@pytest.mark.parametrize("bad", [None, "0.5", AttributeError("'Model' has no 'hidden'")])
@pytest.mark.parametrize("place", ["metric", "extra"])
def test_what_fails_always_is_found_before_the_first_trial(
    make_objective: Make, bad: Any, place: str
) -> None:
    def function(*_: Any) -> Any:
        if isinstance(bad, Exception):
            raise bad
        return bad

    options: dict[str, Any] = (
        {"metric": Custom("score", "minimize", function)}
        if place == "metric"
        else {"extra_metrics": {"score": function}}
    )
    with pytest.raises(InputError, match="'score' fails with an adapter that is not trained yet"):
        make_objective(**options).prepare()


def test_what_is_nan_before_training_is_a_warning(
    make_objective: Make, warnings_logged: list[str]
) -> None:
    values = iter([NAN, 0.25])
    extra = {"precision": lambda *_: next(values)}
    (trial,) = run(make_objective(space=SPACE, extra_metrics=extra), 1)
    assert trial.user_attrs["metrics"] == {"precision": 0.25}
    (warning,) = [one for one in warnings_logged if "metric" in one]
    assert "'precision' is nan for an adapter that is not trained yet" in warning


def test_an_extra_metric_with_a_check_is_checked(make_objective: Make) -> None:
    from optuna_llmbo.lora.metrics import MultipleChoice

    with pytest.raises(InputError, match="without the response"):
        make_objective(extra_metrics={"choice": MultipleChoice(["a", "b"])}).prepare()
