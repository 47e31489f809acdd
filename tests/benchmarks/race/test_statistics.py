"""Statistics against hand-made references and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.race import statistics


INF = float("inf")


@pytest.mark.parametrize(
    ("values", "budget", "expected"),
    [
        ([3, 5, 1, 2], 4, [3, 3, 1, 1]),
        ([3, 5], 4, [3, 3, 3, 3]),
        ([3, 5, 1, 2], 2, [3, 3]),
        ([np.nan, 5, np.nan, 2], 5, [INF, 5, 5, 2, 2]),
        ([np.nan], 2, [INF, INF]),
    ],
)
def test_best_so_far(values: list[float], budget: int, expected: list[float]) -> None:
    assert statistics.best_so_far(values, budget).tolist() == expected


def test_differences_before_the_first_success() -> None:
    """The one that has a value is better; if none has, they are equal."""
    ours, theirs = np.array([1.0, 1.0, INF, INF]), np.array([3.0, INF, 3.0, INF])
    found = statistics.difference(ours, theirs)
    assert found[0] == -2.0 and found[1] == -found[2] < -1e9 and found[3] == 0.0
    never = statistics.difference(np.zeros(20), np.full(20, INF))
    assert statistics.verdict([never]) == statistics.Verdict(wins=1, losses=0, ties=0)


@pytest.mark.parametrize(("target", "trials"), [(9, 1), (3, 1), (2.9, 3), (1, 3), (0.9, INF)])
def test_trials_to_reach(target: float, trials: float) -> None:
    curve = statistics.best_so_far([3, 5, 1, 2], 4)
    assert statistics.trials_to_reach(curve, target) == trials


class TestBootstrap:
    @pytest.mark.parametrize("statistic", [np.median, np.mean])
    def test_as_scipy(self, statistic) -> None:  # type: ignore[no-untyped-def]
        values = np.random.default_rng(0).normal(size=20)
        ours = statistics.bootstrap(values, statistic)
        theirs = stats.bootstrap(
            (values,), statistic, n_resamples=20_000, method="percentile", rng=1
        ).confidence_interval
        assert ours.value == statistic(values)
        assert ours.low == pytest.approx(theirs.low, abs=0.07)
        assert ours.high == pytest.approx(theirs.high, abs=0.07)

    def test_a_constant_has_no_spread(self) -> None:
        estimate = statistics.bootstrap(np.full(5, 2.0))
        assert (estimate.value, estimate.low, estimate.high) == (2.0, 2.0, 2.0)

    def test_infinite_values(self) -> None:
        estimate = statistics.bootstrap(np.array([1.0, 2.0, 3.0, INF, INF]))
        assert (estimate.value, estimate.low, estimate.high) == (3.0, 1.0, INF)
        assert statistics.bootstrap(np.array([1.0, INF])).value == INF

    def test_band_is_bootstrap_at_each_trial(self) -> None:
        curves = np.random.default_rng(0).normal(size=(15, 3))
        middle, low, high = statistics.band(curves)
        for i in range(3):
            one = statistics.bootstrap(curves[:, i])
            assert middle[i] == one.value
            assert low[i] == pytest.approx(one.low, abs=0.25)
            assert high[i] == pytest.approx(one.high, abs=0.25)


class TestMeanOverTasks:
    def test_tasks_weigh_the_same(self) -> None:
        groups = [np.array([[1.0, 2.0], [3.0, 2.0]]), np.array([[4.0, 1.0]])]
        estimates = statistics.mean_over_tasks(groups)
        assert [e.value for e in estimates] == [3.0, 1.5]
        assert all(e.low <= e.value <= e.high for e in estimates)

    def test_as_drawn_one_by_one(self) -> None:
        rng = np.random.default_rng(0)
        groups = [rng.normal(loc, 1.0, size=(n, 1)) for loc, n in ((0, 5), (1, 9), (3, 7))]
        drawn = []
        for _ in range(4000):
            chosen = [groups[i] for i in rng.integers(3, size=3)]
            drawn.append(np.mean([g[rng.integers(len(g), size=len(g))].mean() for g in chosen]))
        (ours,) = statistics.mean_over_tasks(groups)
        assert ours.low == pytest.approx(np.quantile(drawn, 0.025), abs=0.15)
        assert ours.high == pytest.approx(np.quantile(drawn, 0.975), abs=0.15)


def test_equal_values_share_their_ranks() -> None:
    values = np.array([[3.0, 1.0, 3.0, 0.5], [2.0, 2.0, 2.0, 2.0]])
    assert statistics.ranks(values).tolist() == [[3.5, 2.0, 3.5, 1.0], [2.5] * 4]


class TestSignedRank:
    def test_by_enumeration(self) -> None:
        differences = np.array([-1.0, -2.0, 3.0, -4.0, -5.0, -6.0])
        # |W-| of 64 sign patterns: ranks 1..6, the positive sum is 3.
        sums = [sum(r for r in range(1, 7) if (k >> r - 1) & 1) for k in range(64)]
        p = 2 * np.mean(np.array(sums) <= 3)
        assert statistics.signed_rank_test(differences) == pytest.approx(p)

    def test_no_difference(self) -> None:
        assert statistics.signed_rank_test(np.zeros(7)) == 1.0


def test_holm_by_hand() -> None:
    # Holm 1979: sorted 0.005, 0.011, 0.02, 0.04 times 4, 3, 2, 1, never falling.
    corrected = statistics.holm([0.02, 0.005, 0.04, 0.011])
    np.testing.assert_allclose(corrected, [0.04, 0.02, 0.04, 0.033])
    np.testing.assert_allclose(statistics.holm([0.6, 0.9]), [1.0, 1.0])


def test_verdict() -> None:
    better = -np.arange(1.0, 13.0)  # p = 2 / 2^12
    unclear = np.array([1.0, -1.0] * 6)
    verdict = statistics.verdict([better, -better, better, unclear, np.zeros(12)])
    assert verdict == statistics.Verdict(wins=2, losses=1, ties=2)
    five = -np.arange(1.0, 7.0)  # p = 2 / 2^6 = 0.031: significant alone, not among two
    assert statistics.verdict([five]).wins == 1
    assert statistics.verdict([five, unclear]).ties == 2
