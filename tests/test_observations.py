from __future__ import annotations

import numpy as np
from optuna.distributions import FloatDistribution
import pytest

from optuna_llmbo import observations
from optuna_llmbo.history import History
from optuna_llmbo.observations import gather
from optuna_llmbo.observations import thin
from optuna_llmbo.space import SearchSpace
from optuna_llmbo.targets import Scale
from optuna_llmbo.targets import TransformName
from optuna_llmbo.targets import TRANSFORMS
from optuna_llmbo.transfer import Source


SPACE = SearchSpace({"x": FloatDistribution(0, 10), "y": FloatDistribution(-1, 1)})


def history(n: int, seed: int = 0, gaps: np.ndarray | None = None) -> History:
    rng = np.random.default_rng(seed)
    configurations = tuple(SPACE.from_unit(rng.random((n, 2))))
    return History(
        configurations=configurations,
        targets=rng.normal(size=n),
        gaps=np.zeros(n) if gaps is None else gaps,
        seconds=np.ones(n),
        constraints={},
        infeasible=(),
        pending=(),
        seen=frozenset(map(SPACE.key, configurations)),
    )


def source(n: int, seed: int) -> Source:
    rng = np.random.default_rng(seed)
    return Source(rng.random((n, 2)), 1e3 + 50 * rng.normal(size=n))


def test_own_first_then_the_sources_in_their_order() -> None:
    gaps = np.array([0.0, 0.5, 0.0, 0.25])
    own, first, second = history(4, gaps=gaps), source(3, seed=1), source(2, seed=2)
    got = gather(SPACE, own, [first, second], "winsorize", seed=0)
    expected = np.vstack([SPACE.to_unit(own.configurations), first.cube, second.cube])
    np.testing.assert_allclose(got.cube, expected)
    np.testing.assert_array_equal(got.sources, [0, 0, 0, 0, 1, 1, 1, 2, 2])
    np.testing.assert_array_equal(got.gaps, [0, 0.5, 0, 0.25, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(got.kept, [0, 1, 2, 3])
    for array in (got.cube, got.targets, got.gaps, got.sources):
        assert array.dtype == np.float64


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_each_study_is_scaled_for_itself(transform: TransformName) -> None:
    own, other = history(30), source(20, seed=1)
    got = gather(SPACE, own, [other], transform, seed=0)
    for targets, raw in ((got.targets[:30], own.targets), (got.targets[30:], other.targets)):
        assert targets.mean() == pytest.approx(0, abs=1e-9)
        assert targets.std() == pytest.approx(1)
        assert (np.diff(targets[np.argsort(raw)]) >= 0).all()
    # and the way back leads to this study's units, whatever the other's
    inside = np.flatnonzero(own.targets > got.scale.targets[0])
    np.testing.assert_allclose(got.scale.inverse(got.targets[inside]), own.targets[inside])
    alone = gather(SPACE, own, [], transform, seed=0)
    np.testing.assert_array_equal(alone.targets, got.targets[:30])


def test_a_source_with_nothing_usable_is_not_there() -> None:
    empty = Source(np.zeros((0, 2)), np.zeros(0))
    got = gather(SPACE, history(3), [empty, source(2, seed=1)], "power", seed=0)
    np.testing.assert_array_equal(got.sources, [0, 0, 0, 1, 1])


def test_best_is_of_this_study_and_of_complete_trials() -> None:
    own = history(6)
    order = np.argsort(-own.targets)
    gaps = np.zeros(6)
    gaps[order[0]] = 0.5  # the best is a guess
    other = Source(np.zeros((3, 2)), np.array([0.0, 0.0, 9.0]))  # far above its own mean
    got = gather(SPACE, history(6, gaps=gaps), [other], "winsorize", seed=0)
    assert got.best == got.targets[order[1]] < got.targets[order[0]]
    guesses = gather(SPACE, history(6, gaps=np.full(6, 0.5)), [other], "winsorize", seed=0)
    assert guesses.best == guesses.targets[order[0]] < guesses.targets[6:].max()


def test_no_more_than_so_many_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "MAX_OBSERVED", 10)
    monkeypatch.setattr(observations, "MAX_FROM_A_SOURCE", 6)
    gaps = np.linspace(0, 1, 40)
    own, first, second = history(40, gaps=gaps), source(30, seed=1), source(6, seed=2)
    got = gather(SPACE, own, [first, second], "winsorize", seed=3)
    np.testing.assert_array_equal(got.sources, np.repeat([0, 1, 2], [10, 6, 6]))
    np.testing.assert_array_equal(got.cube[:10], SPACE.to_unit(own.configurations)[got.kept])
    np.testing.assert_array_equal(got.gaps[:10], gaps[got.kept])
    # what is left out has a say in the scale, as it does in what "good" means
    everything = Scale.of(own.targets, "winsorize").scores(own.targets)
    np.testing.assert_array_equal(got.targets[:10], everything[got.kept])
    np.testing.assert_array_equal(got.cube[16:], second.cube)  # few enough: all of them


def test_thin_keeps_the_best_half_and_others_by_chance() -> None:
    targets = np.random.default_rng(0).permutation(100).astype(float)
    for seed in range(5):
        kept = thin(targets, 20, seed)
        assert len(kept) == len(set(kept)) == 20
        assert (np.diff(kept) > 0).all()
        assert set(np.flatnonzero(targets >= 90)) <= set(kept)
        others = np.sort(targets[kept])[:10]
        assert others.min() < 30 and others.max() < 90  # from all over, none of the best
        assert len({thin(targets, n, seed).tobytes() for n in (100, 101, 500)}) == 1
    np.testing.assert_array_equal(thin(targets, 100, 0), np.arange(100))
    assert len(thin(targets, 7, 0)) == 7  # an odd number, too


def test_thin_depends_on_the_seed_and_on_nothing_else() -> None:
    targets = np.random.default_rng(0).normal(size=60)
    np.testing.assert_array_equal(thin(targets, 12, 5), thin(targets, 12, 5))
    assert not np.array_equal(thin(targets, 12, 5), thin(targets, 12, 6))
