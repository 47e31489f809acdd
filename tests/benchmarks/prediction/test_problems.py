from __future__ import annotations

import numpy as np
import pytest

from benchmarks.prediction import problems
from benchmarks.prediction.problems import Problem
from optuna_llmbo.errors import InputError
from tests.benchmarks.prediction.conftest import N
from tests.benchmarks.prediction.conftest import value


def test_fewer_observed_are_some_of_more(problem: Problem) -> None:
    few, others = problems.split(5, seed=3)
    more, _ = problems.split(9, seed=3)
    assert set(few) < set(more)
    assert sorted([*few, *others]) == list(range(N))
    assert set(few) != set(problems.split(5, seed=4)[0])


def test_larger_values_are_better(problem: Problem) -> None:
    expected = [-value(configuration) for configuration in problem.configurations]
    np.testing.assert_allclose(problem.values, expected, atol=1e-11)


def test_tasks_of_one_space_have_the_same_configurations() -> None:
    car, phoneme = (problems.load(f"hpobench-{name}") for name in ("car", "phoneme"))
    assert car.configurations == phoneme.configurations
    assert car.prompt.passage == phoneme.prompt.passage
    assert len(car.values) == 256 and not np.array_equal(car.values, phoneme.values)
    derived, given = car.numeric(derived=True), car.numeric(derived=False)
    assert given.shape == (256, 5) and derived.shape[1] > 5
    np.testing.assert_array_equal(derived[:, :5], given)


def test_a_conditional_space_has_no_such_configurations() -> None:
    with pytest.raises(InputError, match="conditional has no fixed search space"):
        problems.load("conditional")
