from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import skew

from optuna_llmbo.surrogate.targets import Scale
from optuna_llmbo.surrogate.targets import TransformName
from optuna_llmbo.surrogate.targets import TRANSFORMS


LIVE = np.array([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6])


def awkward_targets(seed: int) -> np.ndarray:
    """Heavy tails, ties and infinities, in varying numbers."""
    rng = np.random.default_rng(seed)
    values = rng.standard_cauchy(rng.integers(2, 60)) * 10.0 ** rng.integers(-8, 8)
    values = np.append(values, rng.choice(values, size=4))
    return rng.permutation(np.append(values, rng.choice([math.inf, -math.inf, 0.0], size=2)))


def scores_of(targets: np.ndarray, transform: TransformName = "winsorize") -> np.ndarray:
    return Scale.of(targets, transform).scores(targets)


def test_targets_are_standardized() -> None:
    y = scores_of(np.array([1.0, 2.0, 3.0, 4.0]))
    np.testing.assert_allclose(y, (np.arange(4) - 1.5) / math.sqrt(1.25))


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_collapsed_runs_do_not_set_the_scale(transform: TransformName) -> None:
    y = scores_of(np.append(LIVE, [-1e6, -math.inf]), transform)
    assert y[7] == y[8] == y.min() < y[0]
    assert np.ptp(y[:7]) > 1.0  # the live runs are still told apart
    # a good outlier is what is looked for: it stays out
    if transform == "winsorize":
        assert scores_of(np.append(LIVE, 50.0))[-1] > 2.5


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("targets", [[3.0, 3.0], [math.inf, -math.inf], [5.0], [-math.inf]])
def test_targets_without_spread_are_zero(targets: list[float], transform: TransformName) -> None:
    values = np.array(targets)
    np.testing.assert_array_equal(scores_of(values, transform), 0.0)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(
    ("targets", "back"),
    [
        ([3.0, 3.0], [-3.0, 3.0, 6.0]),
        ([5.0], [-5.0, 5.0, 10.0]),
        ([-0.5, -0.5], [-1.5, -0.5, 0.0]),
        ([0.0, 0.0], [-2.0, 0.0, 1.0]),
        ([math.inf, -math.inf], [-2.0, 0.0, 1.0]),
        ([0.1 + 0.2, 0.3, 0.3], [-0.3, 0.3, 0.6]),  # equal but for rounding
    ],
    ids=str,
)
def test_without_spread_a_standard_deviation_is_the_size_of_the_target(
    targets: list[float], back: list[float], transform: TransformName
) -> None:
    values = np.array(targets)
    scale = Scale.of(values, transform)
    np.testing.assert_allclose(scale.scores(values), 0.0)
    np.testing.assert_allclose(scale.inverse(np.array([-2.0, 0.0, 1.0])), back, atol=1e-12)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_infinite_targets_are_the_ends(transform: TransformName) -> None:
    y = scores_of(np.array([0.0, 1.0, math.inf, -math.inf]), transform)
    assert y[2] == y[1] > y[3] == y[0]


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("seed", range(20))
def test_both_ways_are_monotone_and_never_nan(transform: TransformName, seed: int) -> None:
    targets = awkward_targets(seed)
    scale = Scale.of(targets, transform)
    y = scale.scores(targets)
    assert np.isfinite(y).all()
    assert y.mean() == pytest.approx(0, abs=1e-9) and y.std() == pytest.approx(1)
    order = np.argsort(targets, kind="stable")
    assert (np.diff(y[order]) >= 0).all()
    # equal targets have equal scores, better ones inside the fence have better scores
    inside = (targets > scale.targets[0]) & (targets < scale.targets[-1])
    for i in np.flatnonzero(inside):
        assert (y[targets == targets[i]] == y[i]).all()
        if transform == "normal_scores":
            assert (y[targets < targets[i]] < y[i]).all()
    back = scale.inverse(np.linspace(-9, 9, 401))
    assert np.isfinite(back).all() and (np.diff(back) >= 0).all()


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_back_inside_the_fence(transform: TransformName) -> None:
    targets = np.append(np.random.default_rng(1).random(30), [-400.0, 40.0])
    scale = Scale.of(targets, transform)
    back = scale.inverse(scale.scores(targets))
    np.testing.assert_allclose(back[:30], targets[:30])
    # a collapsed run comes back as the fence, a good outlier as it was
    low, high = np.quantile(targets[:10], [0.25, 0.75])
    np.testing.assert_allclose(back[30:], [low - 3 * (high - low), 40.0])


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_trials_that_crowd_around_the_best_do_not_move_the_fence(transform: TransformName) -> None:
    early = np.random.default_rng(1).random(10)
    crowd = early.max() + 1e-3 * np.random.default_rng(2).normal(size=40)
    targets = np.append(early, crowd)
    scores = Scale.of(targets, transform).scores(targets)
    assert len(np.unique(scores[:10])) == 10  # the others are still told apart


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_straight_on_beyond_the_ends(transform: TransformName) -> None:
    targets = np.random.default_rng(2).gamma(2.0, size=20)
    scale = Scale.of(targets, transform)
    first, second = np.sort(scale.scores(targets))[[0, 1]]
    last_but_one, last = np.sort(scale.scores(targets))[[-2, -1]]
    for near, far, sign in ((second, first, -1), (last_but_one, last, 1)):
        at_near, at_far = scale.inverse(np.array([near, far]))
        slope = (at_far - at_near) / (far - near)
        beyond = far + sign * np.array([0.5, 1.0, 7.0])
        np.testing.assert_allclose(scale.inverse(beyond), at_far + slope * (beyond - far))


def test_straight_between_the_targets() -> None:
    scale = Scale.of(np.array([0.0, 1.0, 10.0]), "normal_scores")
    z = scale.scores(np.array([0.0, 1.0, 10.0]))
    middle = scale.inverse(np.array([(z[0] + z[1]) / 2, (z[1] + z[2]) / 2]))
    np.testing.assert_allclose(middle, [0.5, 5.5])


def test_normal_scores_are_those_of_the_ranks() -> None:
    """Blom's scores, then standardized; ties share the score of their middle rank."""
    targets = np.array([30.0, 10.0, 20.0, 20.0, 1e9])
    ranks = np.array([4.0, 1.0, 2.5, 2.5, 5.0])
    expected = norm.ppf((ranks - 3 / 8) / (5 + 1 / 4))
    expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(scores_of(targets, "normal_scores"), expected)
    # only the order counts
    np.testing.assert_allclose(scores_of(np.exp(targets / 1e9), "normal_scores"), expected)


def test_power_makes_targets_less_skewed() -> None:
    targets = np.random.default_rng(3).lognormal(size=80)
    plain, powered = (scores_of(targets, transform) for transform in ("winsorize", "power"))
    assert skew(plain) > 1.5 and abs(skew(powered)) < 0.5
    assert np.corrcoef(plain, targets)[0, 1] == pytest.approx(1)


def test_steps_too_small_for_the_scale_are_not_infinite() -> None:
    """One good outlier so far out that the others' scores are one number."""
    scale = Scale.of(np.array([0.0, 10.0, 20.0, 30.0, 1e20]), "winsorize")
    assert np.isfinite(scale.inverse(np.linspace(-3, 3, 7))).all()


def test_huge_targets_are_still_told_apart() -> None:
    targets = np.array([1e200, 2e200, 3e200, 4e200])
    scores = Scale.of(targets, "winsorize").scores(targets)
    np.testing.assert_allclose(scores, Scale.of(targets / 1e200, "winsorize").knots)
