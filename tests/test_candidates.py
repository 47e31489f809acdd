from __future__ import annotations

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from optuna_llmbo.candidates import candidate_pool
from optuna_llmbo.candidates import startup_configuration
from optuna_llmbo.space import SearchSpace


MIXED: dict[str, BaseDistribution] = {
    "x": FloatDistribution(-1.0, 1.0),
    "rate": FloatDistribution(1e-5, 1e-1, log=True),
    "c": CategoricalDistribution(("a", "b")),
}
GRID: dict[str, BaseDistribution] = {
    "r": IntDistribution(1, 3),
    "c": CategoricalDistribution(("a", "b")),
}


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_continuous_pool_is_distinct_and_in_range() -> None:
    space = SearchSpace(MIXED)
    best = [{"x": 0.9, "rate": 1e-5, "c": "a"}]
    pool = candidate_pool(space, set(), best, n=256, rng=rng())
    assert len({space.key(c) for c in pool}) == len(pool) > 256
    for c in pool:
        assert -1 <= c["x"] <= 1 and 1e-5 <= c["rate"] <= 1e-1 and c["c"] in ("a", "b")


def test_pool_looks_around_the_best() -> None:
    space = SearchSpace(MIXED)
    best = [{"x": 0.5, "rate": 1e-3, "c": "a"}]
    centre = space.to_unit(best)[0]
    near = [
        c
        for c in candidate_pool(space, set(), best, n=256, rng=rng())
        if np.abs(space.to_unit([c])[0] - centre).max() < 0.05
    ]
    far = candidate_pool(space, set(), [], n=256, rng=rng())
    by_chance = [c for c in far if np.abs(space.to_unit([c])[0] - centre).max() < 0.05]
    assert len(near) > 10 > len(by_chance)


def test_finite_grid_is_whole_and_never_resampled() -> None:
    space = SearchSpace(GRID)
    seen: set[tuple[float, ...]] = set()
    for left in range(6, 0, -1):
        pool = candidate_pool(space, seen, [], n=256, rng=rng())
        assert len(pool) == left
        seen.add(space.key(pool[0]))
    assert len(candidate_pool(space, seen, [], n=256, rng=rng())) == 6  # all seen: all again


def test_startup_points_differ_and_fill_the_space() -> None:
    space = SearchSpace({"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)})
    points = [
        startup_configuration(space, set(), index=i, rng=np.random.default_rng(7))
        for i in range(8)
    ]
    for name in ("x", "y"):  # a Sobol sequence has one point in each eighth
        assert sorted(int(p[name] * 8) for p in points) == list(range(8))


@pytest.mark.parametrize("start", [0, 5])
def test_startup_skips_what_is_seen(start: int) -> None:
    space = SearchSpace(GRID)
    seen: set[tuple[float, ...]] = set()
    for i in range(6):
        chosen = startup_configuration(space, seen, index=start + i, rng=np.random.default_rng(7))
        assert space.key(chosen) not in seen
        seen.add(space.key(chosen))
    startup_configuration(space, seen, index=99, rng=np.random.default_rng(7))  # all are seen
