"""The samplers around other projects' optimizers."""

from __future__ import annotations

import math
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import TrialState
import pytest

from benchmarks.race import rivals
from benchmarks.race import tasks
from optuna_llmbo.errors import InputError


SPACE: dict[str, BaseDistribution] = {
    "rank": IntDistribution(1, 64, log=True),
    "depth": IntDistribution(1, 3),
    "rate": FloatDistribution(1e-5, 1e-1, log=True),
    "dropout": FloatDistribution(0.0, 0.3),
    "batch": CategoricalDistribution([2, 6, 16]),
}
DEFAULT = {"rank": 16, "depth": 1, "rate": 1e-3, "dropout": 0.1, "batch": 6}


class Fake:
    """Answers with 1, 2, 3 ... as the rank, and remembers what it is told."""

    def __init__(self) -> None:
        self.asked = 0
        self.told: list[tuple[Any, float]] = []

    def ask(self) -> dict[str, Any]:
        self.asked += 1
        return {**DEFAULT, "rank": self.asked}

    def tell(self, configuration: Any, value: float) -> None:
        self.told.append((configuration["rank"], value))


def test_asked_once_a_trial_and_told_all() -> None:
    optimizer = Fake()
    study = optuna.create_study(sampler=rivals.RivalSampler(SPACE, optimizer, seed=0))
    study.enqueue_trial({**DEFAULT, "rank": 50})
    for value in (5.0, 4.0, 3.0):
        study.tell(study.ask(SPACE), value)
    assert [trial.params["rank"] for trial in study.trials] == [50, 1, 2]
    assert optimizer.told == [(50, 5.0), (1, 4.0)]  # the last one when the next is asked for
    study.ask(SPACE)
    assert optimizer.told == [(50, 5.0), (1, 4.0), (2, 3.0)]


def test_failed_trials_are_told_too() -> None:
    optimizer = Fake()
    study = optuna.create_study(sampler=rivals.RivalSampler(SPACE, optimizer, seed=0))
    study.enqueue_trial({**DEFAULT, "rank": 50})
    study.tell(study.ask(SPACE), state=TrialState.FAIL)
    study.tell(study.ask(SPACE), math.nan)
    study.tell(study.ask(SPACE), 3.0)
    study.ask(SPACE)
    assert [rank for rank, _ in optimizer.told] == [50, 1, 2]
    assert [math.isnan(value) for _, value in optimizer.told] == [True, True, False]


def test_a_partly_enqueued_trial_is_completed() -> None:
    study = optuna.create_study(sampler=rivals.RivalSampler(SPACE, Fake(), seed=0))
    study.enqueue_trial({"rank": 7})
    params = study.ask(SPACE).params
    assert params["rank"] == 7 and params.keys() == SPACE.keys()


def test_values_there_and_back() -> None:
    for name, distribution in SPACE.items():
        there = rivals._to_rival(distribution, DEFAULT[name])
        back = rivals._from_rival(distribution, there)
        assert back == DEFAULT[name] and type(back) is type(DEFAULT[name])
    assert rivals._to_rival(SPACE["batch"], 16) == 2
    assert rivals._from_rival(SPACE["rank"], 64.4) == 64
    assert rivals._from_rival(SPACE["rate"], 0.1000000001) == 0.1


def test_hebo_parameters() -> None:
    parameters = [rivals._hebo_parameter(name, d) for name, d in SPACE.items()]
    assert [p["type"] for p in parameters] == ["pow_int", "int", "pow", "num", "cat"]
    assert parameters[-1]["categories"] == [0, 1, 2]
    with pytest.raises(InputError, match="has a step"):
        rivals._hebo_parameter("x", FloatDistribution(0.0, 1.0, step=0.1))


def test_a_space_that_is_not_fixed() -> None:
    with pytest.raises(InputError, match="smac cannot search 'conditional'"):
        rivals.make_sampler("smac", tasks.load("conditional"), seed=0)


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> Any:
        raise ModuleNotFoundError("No module named 'hebo'")

    monkeypatch.setitem(rivals.OPTIMIZERS, "hebo", missing)
    with pytest.raises(InputError, match=r"No module named 'hebo'.*rivals\.txt"):
        rivals.make_sampler("hebo", tasks.load("bbob-sphere-2d"), seed=0)


def objective(trial: optuna.Trial) -> float:
    """Fail at the default and at every second depth."""
    if trial.params == DEFAULT or trial.params["depth"] == 2:
        return math.nan
    return abs(trial.params["rank"] - 20) + trial.params["dropout"]


def race(method: str) -> tuple[optuna.Study, Any]:
    """Run a study whose first trial is the default; the optimizer is told of all but the last."""
    optimizer = rivals.OPTIMIZERS[method](SPACE, 0)
    study = optuna.create_study(sampler=rivals.RivalSampler(SPACE, optimizer, seed=0))
    study.enqueue_trial(DEFAULT)
    for _ in range(9):
        trial = study.ask(SPACE)
        study.tell(trial, objective(trial))
    return study, optimizer


@pytest.mark.parametrize("method", ["ax", "hebo", "smac"])
def test_the_real_ones(method: str) -> None:
    pytest.importorskip(method)
    studies = [race(method)[0] for _ in range(2)]
    found = [[trial.params for trial in study.trials] for study in studies]
    assert found[0] == found[1]
    assert found[0][0] == DEFAULT
    assert len({params["rank"] for params in found[0]}) > 3
    states = [trial.state for trial in studies[0].trials]
    assert TrialState.COMPLETE in states and TrialState.FAIL in states[1:]


def test_the_seed_of_ax_decides() -> None:
    pytest.importorskip("ax")
    asked = []
    for seed in (0, 0, 1):
        optimizer = rivals.Ax(SPACE, seed)
        rivals._seed_globals(seed, trial_number=0)
        optimizer.ask()  # the middle
        asked.append(optimizer.ask())
    assert asked[0] == asked[1] != asked[2]


def test_ax_abandons_failures() -> None:
    pytest.importorskip("ax")
    study, optimizer = race("ax")
    experiment = optimizer._client._experiment
    told = study.trials[:-1]
    assert [experiment.trials[t.number].status.name for t in told] == [
        "COMPLETED" if t.state == TrialState.COMPLETE else "ABANDONED" for t in told
    ]
    values = experiment.lookup_data().df.set_index("trial_index")["mean"]
    assert values.to_dict() == {t.number: t.value for t in told if t.value is not None}
    assert len({str(trial.params) for trial in study.trials}) == len(study.trials)


def test_hebo_leaves_failures_out() -> None:
    pytest.importorskip("hebo")
    study, optimizer = race("hebo")
    told = [t.value for t in study.trials[:-1] if t.state == TrialState.COMPLETE]
    assert optimizer._optimizer.y.ravel().tolist() == told


def test_smac_counts_failures_as_the_worst() -> None:
    pytest.importorskip("smac")
    optimizer = rivals.Smac(SPACE, 0)
    history = optimizer._facade.runhistory
    optimizer.tell(DEFAULT, math.nan)
    assert len(history) == 0  # there is no cost yet
    for value in (1.0, math.nan, 3.0):
        optimizer.tell(optimizer.ask(), value)
    assert sorted((told.status.name, told.cost) for told in history.values()) == [
        ("CRASHED", 3.0),
        ("CRASHED", 3.0),
        ("SUCCESS", 1.0),
        ("SUCCESS", 3.0),
    ]
    assert {**DEFAULT, "batch": 1} in map(dict, history.get_configs())
