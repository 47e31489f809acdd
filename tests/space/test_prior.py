from __future__ import annotations

from collections.abc import Callable
import math

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest
from scipy.stats import norm
from scipy.stats import qmc

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.errors import InputError
from optuna_llmbo.space.prior import check_ranges
from optuna_llmbo.space.prior import Prior
from optuna_llmbo.space.prior import Range
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.surrogate.ablation import Ablation


AXES: dict[str, tuple[BaseDistribution, Range]] = {
    "in the middle": (FloatDistribution(0.0, 10.0), (3.0, 5.0)),
    "at the end": (FloatDistribution(0.0, 10.0), (9.0, 10.0)),
    "across the end": (FloatDistribution(0.0, 10.0), (-7.0, 2.0)),
    "everywhere": (FloatDistribution(0.0, 10.0), (-7.0, 70.0)),
    "nearly a point": (FloatDistribution(0.0, 10.0), (5.0, 5.0001)),
    "log": (FloatDistribution(1e-6, 1e-2, log=True), (1e-5, 1e-4)),
    "integers": (IntDistribution(1, 256, log=True), (8, 64)),
    "ordinal": (CategoricalDistribution((1, 4, 16, 64, 256)), (4, 64)),
}


def density(prior: Prior, n: int = 4001) -> tuple[np.ndarray, np.ndarray]:
    """Along the one axis of a prior's space."""
    places = np.linspace(0.0, 1.0, n)
    return places, np.exp(prior.log_density(places[:, None]))


@pytest.mark.parametrize("axis", AXES)
def test_density_integrates_to_one(axis: str) -> None:
    distribution, expected = AXES[axis]
    prior = Prior(SearchSpace({"x": distribution}), {"x": expected})
    places, values = density(prior)
    assert np.trapezoid(values, places) == pytest.approx(1.0, abs=1e-3)
    assert values.min() > 0.09  # nothing is excluded
    assert values.max() < 12.0  # and nothing is taken for certain


def test_ranges_that_say_something() -> None:
    """Not those outside of the space, of choices without order, or of parameters it lacks."""
    numbers = FloatDistribution(0.0, 1.0)
    space = SearchSpace({"x": numbers, "y": numbers, "choice": CategoricalDistribution("abc")})
    ranges = {"x": (0.2, 7.0), "y": (2.0, 3.0), "choice": (0.0, 1.0), "elsewhere": (0.0, 1.0)}
    assert Prior(space, ranges).effective == {"x": (0.2, 7.0)}


def test_density_is_a_normal_one_on_the_parameters_own_scale() -> None:
    """The central 68% of the density in log10 of the rate, by scipy; a tenth is uniform."""
    space = SearchSpace({"rate": FloatDistribution(1e-6, 1e-2, log=True)})
    prior = Prior(space, {"rate": (1e-4, 1e-3)})
    rates = np.array([1e-6, 1e-4, 10**-3.5, 1e-3, 1e-2])
    bell = norm(loc=-3.5, scale=0.5)
    inside = bell.cdf(-2) - bell.cdf(-6)
    expected = 0.9 * 4 * bell.pdf(np.log10(rates)) / inside + 0.1  # four decades are the unit
    points = space.to_unit([{"rate": float(rate)} for rate in rates])
    np.testing.assert_allclose(prior.log_density(points), np.log(expected), atol=1e-9)


def test_densities_of_several_parameters_multiply() -> None:
    ranges: dict[str, Range] = {"x": (0.1, 0.2), "y": (0.6, 0.9)}
    names = SearchSpace({name: FloatDistribution(0.0, 1.0) for name in "xyz"})
    points = np.random.default_rng(0).random((20, 3))
    each = [Prior(names, {name: ranges[name]}).log_density(points) for name in ranges]
    np.testing.assert_allclose(Prior(names, ranges).log_density(points), sum(each))
    moved = points.copy()
    moved[:, names.names.index("z")] = 0.5  # of z nothing is expected
    both = Prior(names, ranges)
    np.testing.assert_array_equal(both.log_density(moved), both.log_density(points))


@pytest.mark.parametrize(
    ("distribution", "name", "expected"),
    [
        (CategoricalDistribution(("a", "b", "c")), "x", (0.0, 1.0)),
        (CategoricalDistribution((True, False)), "x", (0.0, 1.0)),
        (FloatDistribution(0.0, 1.0), "x", (2.0, 3.0)),
        (FloatDistribution(0.0, 1.0), "x", (-3.0, -2.0)),
        (FloatDistribution(1e-3, 1.0, log=True), "x", (-1.0, 0.0)),
        (FloatDistribution(0.0, 1.0), "of another study", (0.2, 0.3)),
        (IntDistribution(3, 3), "x", (1, 9)),
    ],
    ids=str,
)
def test_what_cannot_be_expected_says_nothing(
    distribution: BaseDistribution, name: str, expected: Range
) -> None:
    prior = Prior(SearchSpace({"x": distribution}), {name: expected})
    places, values = density(prior, n=11)
    np.testing.assert_array_equal(values, 1.0)
    np.testing.assert_array_equal(prior.warp(places[:, None]), places[:, None])


@pytest.mark.parametrize("axis", AXES)
def test_warped_points_have_the_expected_density(axis: str) -> None:
    distribution, expected = AXES[axis]
    space = SearchSpace({"x": distribution, "y": FloatDistribution(0.0, 1.0)})
    prior = Prior(space, {"x": expected})
    uniform = qmc.Sobol(2, rng=0).random(1024)
    warped = prior.warp(uniform)
    np.testing.assert_array_equal(warped[:, 1], uniform[:, 1])
    assert (warped >= 0).all() and (warped <= 1).all()
    # shares below some places, by the integral of the density without its uniform tenth
    places, values = density(Prior(SearchSpace({"x": distribution}), {"x": expected}))
    steps = np.diff(places) * (values[1:] + values[:-1]) / 2
    whole = np.concatenate([[0.0], np.cumsum(steps)])
    below = (whole - 0.1 * places) / 0.9
    for place in (0.1, 0.3, 0.5, 0.9):
        share = np.mean(warped[:, 0] <= place)
        assert share == pytest.approx(np.interp(place, places, below), abs=0.01)


def test_ranges_are_checked() -> None:
    assert check_ranges({"x": [1, 2]}) == {"x": (1.0, 2.0)}  # type: ignore[dict-item]
    wrong: list[object] = [
        (2.0, 1.0),
        (1.0, 1.0),
        (1.0,),
        (1.0, 2.0, 3.0),
        (1.0, math.inf),
        (math.nan, 1.0),
        ("a", "b"),
        "ab",
        0.1,
        None,
    ]
    for expected in wrong:
        with pytest.raises(InputError, match=r"prior\['x'\] must be \(low, high\), two finite"):
            check_ranges({"x": expected})  # type: ignore[dict-item]
    with pytest.raises(InputError, match="prior"):
        LLMBOSampler(kernel="numeric", prior={"x": (2.0, 1.0)})


# What a prior is worth in a study.

SEEDS = range(5)


def bowl(trial: optuna.Trial) -> float:
    return (trial.suggest_float("x", 0, 1) - 0.3) ** 2 + (
        trial.suggest_float("y", 0, 1) - 0.6
    ) ** 2


def hole(trial: optuna.Trial) -> float:
    """Level but for a narrow hole at x = 0.73, rate = 2e-4."""
    x = trial.suggest_float("x", 0, 1)
    rate = trial.suggest_float("rate", 1e-5, 1, log=True)
    distance = (x - 0.73) ** 2 + (math.log10(rate / 2e-4) / 5) ** 2
    return 1 - math.exp(-distance / (2 * 0.04**2))


def median_of_the_best(
    objective: Callable[[optuna.Trial], float],
    prior: dict[str, Range] | None,
    *,
    at_random: int = 0,
    n_trials: int,
) -> float:
    """Over studies that differ in the seed, some of their trials made before at random."""
    best = []
    for seed in SEEDS:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        study.optimize(objective, n_trials=at_random)
        study.sampler = LLMBOSampler(
            kernel="numeric",
            knowledge=None,
            prior=prior,
            acquisition="log_ei",
            ablation=Ablation(prior_strength=3.0, refinements=1),
            seed=seed,
        )
        study.optimize(objective, n_trials=n_trials - at_random)
        best.append(study.best_value)
    return float(np.median(best))


@pytest.mark.long
def test_a_right_prior_finds_a_narrow_optimum_sooner() -> None:
    expected = {"x": (0.6, 0.8), "rate": (1e-4, 1e-3)}
    alone = median_of_the_best(hole, None, n_trials=18)
    guided = median_of_the_best(hole, expected, n_trials=18)
    assert guided < 5e-4 < alone


@pytest.mark.long
def test_a_wrong_prior_washes_out() -> None:
    """Within a factor of 10 of a squared distance; without its decay it is thousands."""
    misleading = {"x": (0.85, 0.95), "y": (0.05, 0.15)}
    alone = median_of_the_best(bowl, None, at_random=24, n_trials=32)
    misled = median_of_the_best(bowl, misleading, at_random=24, n_trials=32)
    assert alone < 1e-4
    assert misled < 10 * alone
