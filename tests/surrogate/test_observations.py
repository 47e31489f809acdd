from __future__ import annotations

import numpy as np
from optuna.distributions import FloatDistribution
import pytest

from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.study.history import History
from optuna_llmbo.study.transfer import SourceObservations
from optuna_llmbo.surrogate import observations
from optuna_llmbo.surrogate.observations import gather
from optuna_llmbo.surrogate.observations import thin
from optuna_llmbo.surrogate.targets import Scale
from optuna_llmbo.surrogate.targets import TransformName
from optuna_llmbo.surrogate.targets import TRANSFORMS


SPACE = SearchSpace({"x": FloatDistribution(0, 10), "y": FloatDistribution(-1, 1)})


def history(n: int, seed: int = 0, gaps: np.ndarray | None = None) -> History:
    rng = np.random.default_rng(seed)
    configurations = tuple(SPACE.from_unit(rng.random((n, 2))))
    return History(
        configurations=configurations,
        targets=rng.normal(size=(n, 1)),
        gaps=np.zeros(n) if gaps is None else gaps,
        seconds=np.ones(n),
        constraints={},
        infeasible=(),
        pending=(),
        seen=frozenset(map(SPACE.key, configurations)),
    )


def source(n: int, seed: int) -> SourceObservations:
    rng = np.random.default_rng(seed)
    return SourceObservations(
        rng.random((n, 2)), 1e3 + 50 * rng.normal(size=(n, 1)), np.ones(n, bool)
    )


def test_own_first_then_the_sources_in_their_order() -> None:
    gaps = np.array([0.0, 0.5, 0.0, 0.25])
    own, first, second = history(4, gaps=gaps), source(3, seed=1), source(2, seed=2)
    got = gather(SPACE, own, [first, second], "winsorize", seed=0)
    expected = np.vstack([SPACE.to_unit(own.configurations), first.points, second.points])
    np.testing.assert_allclose(got.points, expected)
    np.testing.assert_array_equal(got.sources, [0, 0, 0, 0, 1, 1, 1, 2, 2])
    np.testing.assert_array_equal(got.gaps, [0, 0.5, 0, 0.25, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(got.kept, [0, 1, 2, 3])
    for array in (got.points, got.targets, got.gaps, got.sources):
        assert array.dtype == np.float64


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_each_study_is_scaled_for_itself(transform: TransformName) -> None:
    own, other = history(30), source(20, seed=1)
    got = gather(SPACE, own, [other], transform, seed=0)
    for targets, raw in ((got.targets[:30], own.targets), (got.targets[30:], other.targets)):
        assert targets.mean() == pytest.approx(0, abs=1e-9)
        assert targets.std() == pytest.approx(1)
        assert (np.diff(targets[np.argsort(raw[:, 0]), 0]) >= 0).all()
    # and the way back leads to this study's units, whatever the other's
    (scale,) = got.scales
    inside = np.flatnonzero(own.targets[:, 0] > scale.targets[0])
    np.testing.assert_allclose(scale.inverse(got.targets[inside, 0]), own.targets[inside, 0])
    alone = gather(SPACE, own, [], transform, seed=0)
    np.testing.assert_array_equal(alone.targets, got.targets[:30])


def test_a_source_with_nothing_usable_is_not_there() -> None:
    empty = SourceObservations(np.zeros((0, 2)), np.zeros((0, 1)), np.zeros(0, bool))
    got = gather(SPACE, history(3), [empty, source(2, seed=1)], "power", seed=0)
    np.testing.assert_array_equal(got.sources, [0, 0, 0, 1, 1])


def test_best_is_of_this_study_and_of_complete_trials() -> None:
    own = history(6)
    order = np.argsort(-own.targets[:, 0])
    everywhere = np.ones(6, dtype=bool)
    gaps = np.zeros(6)
    gaps[order[0]] = 0.5  # the best is a guess
    other = SourceObservations(
        np.zeros((3, 2)), np.array([[0.0], [0.0], [9.0]]), np.ones(3, bool)
    )  # far above its own mean
    got = gather(SPACE, history(6, gaps=gaps), [other], "winsorize", seed=0)
    assert got.achieved(everywhere).max() == got.targets[order[1], 0] < got.targets[order[0], 0]
    guesses = gather(SPACE, history(6, gaps=np.full(6, 0.5)), [other], "winsorize", seed=0)
    assert (
        guesses.achieved(everywhere).max()
        == guesses.targets[order[0], 0]
        < guesses.targets[6:].max()
    )


def test_trials_of_another_range_do_not_set_the_scale() -> None:
    moved = SearchSpace({"x": FloatDistribution(20, 30), "y": FloatDistribution(-1, 1)})
    places = [1.0, 2.0, 3.0, 21.0, 24.0, 26.0, 29.0]
    values = np.array([-900.0, 800.0, -700.0, 1.0, 2.0, 3.0, 4.0])
    n = len(places)
    known = History(
        configurations=tuple({"x": x, "y": 0.0} for x in places),
        targets=values[:, None],
        gaps=np.zeros(n),
        seconds=np.ones(n),
        constraints={},
        infeasible=(),
        pending=(),
        seen=frozenset(),
    )
    got = gather(moved, known, [], "winsorize", seed=0).targets[:, 0]
    assert got[3:].std() == pytest.approx(1) and got[0] == got[2] == got[3] and got[1] == got[6]


def test_what_counts_is_feasible_if_anything_is() -> None:
    got = gather(SPACE, history(6), [], "winsorize", seed=0)
    feasible = np.arange(6) < 2
    np.testing.assert_array_equal(got.achieved(feasible), got.targets[:2])
    np.testing.assert_array_equal(got.achieved(feasible & False), got.targets)


def test_no_more_than_so_many_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "MAX_OBSERVED", 10)
    monkeypatch.setattr(observations, "MAX_FROM_A_SOURCE", 6)
    gaps = np.linspace(0, 1, 40)
    own, first, second = history(40, gaps=gaps), source(30, seed=1), source(6, seed=2)
    got = gather(SPACE, own, [first, second], "winsorize", seed=3)
    np.testing.assert_array_equal(got.sources, np.repeat([0, 1, 2], [10, 6, 6]))
    np.testing.assert_array_equal(got.points[:10], SPACE.to_unit(own.configurations)[got.kept])
    np.testing.assert_array_equal(got.gaps[:10], gaps[got.kept])
    # what is left out has a say in the scale, as it does in what "good" means
    everything = Scale.of(own.targets[:, 0], "winsorize").scores(own.targets[:, 0])
    np.testing.assert_array_equal(got.targets[:10, 0], everything[got.kept])
    np.testing.assert_array_equal(got.points[16:], second.points)  # few enough: all of them


def test_thin_keeps_the_best_half_and_others_by_chance() -> None:
    targets = np.random.default_rng(0).permutation(100).astype(float)[:, None]
    for seed in range(5):
        kept = thin(targets, 20, seed)
        assert len(kept) == len(set(kept)) == 20
        assert (np.diff(kept) > 0).all()
        assert set(np.flatnonzero(targets >= 90)) <= set(kept)
        others = np.sort(targets[kept, 0])[:10]
        assert others.min() < 30 and others.max() < 90  # from all over, none of the best
        assert len({thin(targets, n, seed).tobytes() for n in (100, 101, 500)}) == 1
    np.testing.assert_array_equal(thin(targets, 100, 0), np.arange(100))
    assert len(thin(targets, 7, 0)) == 7  # an odd number, too


def test_thin_depends_on_the_seed_and_on_nothing_else() -> None:
    targets = np.random.default_rng(0).normal(size=(60, 1))
    np.testing.assert_array_equal(thin(targets, 12, 5), thin(targets, 12, 5))
    assert not np.array_equal(thin(targets, 12, 5), thin(targets, 12, 6))
