"""An objective in another process: it is pickled as its options, and loads what it needs there."""

from __future__ import annotations

from collections.abc import Callable
import copy
import multiprocessing
import pickle
from typing import Any

import optuna
from optuna.distributions import IntDistribution
from optuna.trial import FixedTrial
import pytest

from optuna_llmbo.lora import LoRAObjective


Make = Callable[..., LoRAObjective]
SPACE: dict[str, Any] = {"batch_size": IntDistribution(9, 9)}
PARAMS = {"batch_size": 9}


def run(objective: LoRAObjective) -> float:
    value = objective(FixedTrial(PARAMS))
    assert isinstance(value, float)
    return value


def by_function(trial: optuna.Trial) -> dict[str, Any]:
    return {"batch_size": trial.suggest_int("batch_size", 9, 9)}


@pytest.mark.parametrize("prepared", [False, True])
def test_a_copy_trains_the_same(make_objective: Make, prepared: bool) -> None:
    for space in (SPACE, by_function):
        objective = make_objective(space=space, reports=1)
        if prepared:
            objective.prepare()
        data = pickle.dumps(objective)
        for other in (pickle.loads(data), copy.deepcopy(objective)):
            assert other.fingerprint == objective.fingerprint
            assert run(other) == run(objective)


def test_a_prepared_one_is_as_small_as_its_options(make_objective: Make) -> None:
    objective = make_objective(space=SPACE)
    before = len(pickle.dumps(objective))
    objective.prepare()
    assert len(pickle.dumps(objective)) == before


def test_a_lambda_as_space(make_objective: Make) -> None:
    cloudpickle = pytest.importorskip("cloudpickle")  # what joblib, Ray and Dask pickle with
    objective = make_objective(space=lambda trial: by_function(trial), reports=1)
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(objective)  # as any lambda
    assert run(pickle.loads(cloudpickle.dumps(objective))) == run(objective)


@pytest.mark.long
def test_other_processes(make_objective: Make) -> None:
    """Started anew, so that nothing is inherited."""
    objective = make_objective(space=SPACE, reports=1)
    expected = run(objective)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(run, [objective]) == [pytest.approx(expected, rel=1e-6)]
