"""Random configurations, snapping and the scale of a task."""

from __future__ import annotations

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest
from scipy import stats

from benchmarks.race.task import draw
from benchmarks.race.task import nearest_in_log
from optuna_llmbo.errors import InputError


N = 20_000


@pytest.mark.parametrize(
    ("distribution", "scale"),
    [
        (FloatDistribution(-5.0, 5.0), lambda x: (x + 5) / 10),
        (FloatDistribution(1e-8, 1.0, log=True), lambda x: np.log10(x) / 8 + 1),
    ],
)
def test_floats_are_uniform_on_their_scale(distribution: FloatDistribution, scale) -> None:  # type: ignore[no-untyped-def]
    values = np.array([row["x"] for row in draw({"x": distribution}, N, seed=0)])
    assert stats.kstest(scale(values), "uniform").pvalue > 0.01


def test_each_integer_and_choice_has_its_share() -> None:
    space = {
        "depth": IntDistribution(1, 3),
        "rank": IntDistribution(1, 64, log=True),
        "kind": CategoricalDistribution(["a", "b", None]),
    }
    rows = draw(space, N, seed=1)
    for name, values in (("depth", [1, 2, 3]), ("kind", ["a", "b", None])):
        counts = [sum(row[name] == value for row in rows) for value in values]
        assert stats.chisquare(counts).pvalue > 0.01
    ends = np.log(np.arange(1, 66) - 0.5)
    counts = [sum(row["rank"] == value for row in rows) for value in range(1, 65)]
    assert stats.chisquare(counts, N * np.diff(ends) / (ends[-1] - ends[0])).pvalue > 0.01
    assert all(type(row["rank"]) is int for row in rows)


def test_parameters_are_independent_and_seeded() -> None:
    space = {"a": FloatDistribution(0.0, 1.0), "b": FloatDistribution(0.0, 1.0)}
    rows = draw(space, 1000, seed=2)
    assert draw(space, 1000, seed=2) == rows
    assert draw(space, 1000, seed=3) != rows
    assert stats.spearmanr([r["a"] for r in rows], [r["b"] for r in rows]).pvalue > 0.01


def test_steps_are_not_drawn() -> None:
    with pytest.raises(InputError, match="expected no step"):
        draw({"x": IntDistribution(0, 10, step=5)}, 1, seed=0)


@pytest.mark.parametrize(
    ("value", "index"), [(1, 0), (9.9, 0), (10.1, 1), (99, 1), (1e9, 2), (316, 1), (317, 2)]
)
def test_nearest_in_log(value: float, index: int) -> None:
    assert nearest_in_log([1, 100, 1000], value) == index
