from __future__ import annotations

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from optuna_llmbo.space.search_space import Key
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.study.branches import read_branches
from optuna_llmbo.suggestion.candidates import candidate_pool
from optuna_llmbo.suggestion.candidates import Landmarks
from optuna_llmbo.suggestion.candidates import neighbours
from optuna_llmbo.suggestion.candidates import Region
from optuna_llmbo.suggestion.candidates import startup_configuration


MIXED: dict[str, BaseDistribution] = {
    "x": FloatDistribution(-1.0, 1.0),
    "rate": FloatDistribution(1e-5, 1e-1, log=True),
    "c": CategoricalDistribution(("a", "b")),
}
GRID: dict[str, BaseDistribution] = {
    "r": IntDistribution(1, 3),
    "c": CategoricalDistribution(("a", "b")),
}
NONE = np.zeros((0, 2))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def region(space: SearchSpace) -> Region:
    return Region(read_branches((), space.distributions))


def as_it_is(points: np.ndarray) -> np.ndarray:
    return points


def equally_far(space: SearchSpace) -> list[np.ndarray | None]:
    return [None] * len(space.nominal)


def around(best: np.ndarray, advised: np.ndarray | None = None) -> Landmarks:
    return Landmarks(best, best[:0] if advised is None else advised)


def test_the_pool_holds_what_is_advised() -> None:
    space = SearchSpace(MIXED)
    advised = space.to_unit([{"x": 0.123, "rate": 3e-4, "c": "b"}])
    marks = around(advised[:0], advised)
    pool = candidate_pool(region(space), set(), marks, equally_far(space), n=64, rng=rng())
    assert space.keys(advised)[0] in space.keys(pool)
    pool = candidate_pool(
        region(space), set(space.keys(advised)), marks, equally_far(space), n=64, rng=rng()
    )
    assert space.keys(advised)[0] not in space.keys(pool)  # once it was tried


def test_continuous_pool_is_distinct_and_in_range() -> None:
    space = SearchSpace(MIXED)
    best = space.to_unit([{"x": 0.9, "rate": 1e-5, "c": "a"}])
    pool = candidate_pool(region(space), set(), around(best), equally_far(space), n=256, rng=rng())
    assert len(set(space.keys(pool))) == len(pool) > 256
    for c in space.from_unit(pool):
        assert -1 <= c["x"] <= 1 and 1e-5 <= c["rate"] <= 1e-1 and c["c"] in ("a", "b")
    np.testing.assert_allclose(space.to_unit(space.from_unit(pool)), pool, atol=1e-12)


def test_pool_looks_around_the_best() -> None:
    space = SearchSpace(MIXED)
    best = space.to_unit([{"x": 0.5, "rate": 1e-3, "c": "a"}])
    pool = candidate_pool(region(space), set(), around(best), equally_far(space), n=256, rng=rng())
    far = candidate_pool(
        region(space), set(), around(best[:0]), equally_far(space), n=256, rng=rng()
    )
    near, by_chance = (int((np.abs(c - best).max(axis=1) < 0.05).sum()) for c in (pool, far))
    assert near > 10 > by_chance


def test_neighbours_move_one_parameter_or_all_and_draw_nominal_choices_anew() -> None:
    space = SearchSpace({**MIXED, "c": CategoricalDistribution(tuple("abcd"))})
    centres = space.to_unit(
        [{"x": 0.0, "rate": 1e-3, "c": "a"}, {"x": 0.5, "rate": 1e-2, "c": "d"}]
    )
    scales = np.full((4000, 1), 1e-3)
    found = neighbours(region(space), centres, equally_far(space), scales, rng())
    np.testing.assert_array_equal(space.snap(found), found)
    numbers = [i for i, axis in enumerate(space.axes) if not axis.is_nominal]
    distances = np.abs(found[:, None] - centres[None])[:, :, numbers].max(axis=2)
    assert distances.min(axis=1).max() < 6e-3  # each near one of the centres,
    assert 0.45 < np.mean(distances.argmin(axis=1)) < 0.55  # each centre as often
    start = centres[distances.argmin(axis=1)]
    moved = found != start
    alone = moved[:, numbers].sum(axis=1)  # one number moves: a third of one half
    assert np.mean(alone == 1) == pytest.approx(1 / 3, abs=0.04)
    assert np.mean(alone == 2) == pytest.approx(1 / 2, abs=0.04)
    nominal = space.names.index("c")
    places = np.unique(found[moved[:, nominal], nominal])
    assert len(places) == 4  # far choices are as near as close ones
    # drawn anew in 1/2 + 1/6 of the cases, and to another choice in three of four
    assert np.mean(moved[:, nominal]) == pytest.approx(2 / 3 * 3 / 4, abs=0.04)


def test_finite_grid_is_whole_and_never_resampled() -> None:
    space = SearchSpace(GRID)
    seen: set[Key] = set()
    for left in range(6, 0, -1):
        pool = candidate_pool(
            region(space), seen, around(NONE), equally_far(space), n=256, rng=rng()
        )
        assert len(pool) == left
        seen.add(space.keys(pool)[0])
    assert (
        len(
            candidate_pool(region(space), seen, around(NONE), equally_far(space), n=256, rng=rng())
        )
        == 6
    )  # all seen: all again


def test_pool_leaves_out_what_is_seen() -> None:
    space = SearchSpace({"n": IntDistribution(1, 2**17)})  # too many to enumerate
    best = space.to_unit([{"n": 70_000}])
    seen = set(
        space.keys(
            candidate_pool(region(space), set(), around(best), equally_far(space), n=64, rng=rng())
        )[::2]
    )
    pool = candidate_pool(region(space), seen, around(best), equally_far(space), n=64, rng=rng())
    assert len(pool) and not seen & set(space.keys(pool))


def test_startup_points_differ_and_fill_the_space() -> None:
    space = SearchSpace({"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)})
    points = [
        startup_configuration(space, set(), as_it_is, index=i, rng=np.random.default_rng(7))
        for i in range(8)
    ]
    for name in ("x", "y"):  # a Sobol sequence has one point in each eighth
        assert sorted(int(p[name] * 8) for p in points) == list(range(8))


@pytest.mark.parametrize("start", [0, 5])
def test_startup_skips_what_is_seen(start: int) -> None:
    space = SearchSpace(GRID)
    seen: set[Key] = set()
    for i in range(6):
        chosen = startup_configuration(
            space, seen, as_it_is, index=start + i, rng=np.random.default_rng(7)
        )
        assert space.key(chosen) not in seen
        seen.add(space.key(chosen))
    # all are seen
    startup_configuration(space, seen, as_it_is, index=99, rng=np.random.default_rng(7))


def test_startup_points_are_warped() -> None:
    space = SearchSpace({"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)})
    plain, warped = (
        startup_configuration(space, set(), warp, index=3, rng=np.random.default_rng(7))
        for warp in (as_it_is, lambda points: points**2)
    )
    assert warped == pytest.approx({name: value**2 for name, value in plain.items()})


def test_steps_between_choices_are_as_short_as_the_others() -> None:
    space = SearchSpace({"c": CategoricalDistribution(tuple("abcdefghijkl"))})
    line = np.arange(12.0)[:, None]  # a next to b next to c ...
    start = space.to_unit([{"c": "f"}])

    def reached(scale: float) -> list[int]:
        scales = np.full((400, 1), scale)
        found = neighbours(region(space), start, [line], scales, rng())
        return [abs("abcdefghijkl".index(c["c"]) - 5) for c in space.from_unit(found)]

    assert max(reached(0.01)) == 1
    assert max(reached(0.3)) > 3
    assert np.mean(reached(0.1)) < np.mean(reached(0.3))
    assert 0 not in reached(0.1)


def test_a_step_keeps_what_a_branch_lacks() -> None:
    space = SearchSpace({"c": CategoricalDistribution(tuple("abc")), "x": MIXED["x"]})
    starts = np.array([[np.nan, 0.5]])
    scales = np.full((16, 1), 0.1)
    alike = [np.arange(3.0)[:, None]]
    found = neighbours(region(space), starts, alike, scales, rng())
    assert np.isnan(found[:, 0]).all()


def test_equal_configurations_of_a_grid_are_not_tried_as_they_are_listed() -> None:
    space = SearchSpace({"c": CategoricalDistribution(tuple("abcdefghijkl"))})
    pool = candidate_pool(region(space), set(), around(NONE[:, :1]), [None], n=64, rng=rng())
    assert sorted(pool[:, 0]) == sorted(space.grid()[:, 0])
    assert list(pool[:, 0]) != list(space.grid()[:, 0])
