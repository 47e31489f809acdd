"""The samplers around other projects' optimizers."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
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


@pytest.mark.parametrize(("method", "package"), [("hebo", "hebo"), ("smac", "smac")])
def test_the_real_ones(method: str, package: str) -> None:
    pytest.importorskip(package)
    found = []
    for _ in range(2):
        sampler = rivals.RivalSampler(SPACE, rivals.OPTIMIZERS[method](SPACE, 0), seed=0)
        study = optuna.create_study(sampler=sampler)
        study.enqueue_trial(DEFAULT)
        for _ in range(8):
            trial = study.ask(SPACE)
            study.tell(trial, abs(trial.params["rank"] - 20) + trial.params["dropout"])
        found.append([trial.params for trial in study.trials])
    assert found[0] == found[1]
    assert found[0][0] == DEFAULT
    assert len({params["rank"] for params in found[0]}) > 3
