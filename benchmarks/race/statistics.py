"""Statistics for the report: intervals, ranks, paired tests. Lower values are better."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


N_RESAMPLES = 2000
LEVEL = 0.95
SIGNIFICANT = 0.05

_LARGE = 1e100
"""Finite stand-in of inf, for ranks of differences."""


@dataclass(frozen=True)
class Estimate:
    """A number and its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """Number of tasks on which one method is better than another, by corrected tests."""

    wins: int
    losses: int
    ties: int
    """Tasks without a significant difference."""


def best_so_far(values: Sequence[float], budget: int) -> np.ndarray:
    """Compute the lowest value up to each trial, (budget,); missing trials repeat the last.

    Until the first trial that succeeds it is inf, worse than any value.

    Args:
        values: (k,), k >= 1, in the order of the trials; nan for those that failed.
        budget: number of trials asked for.
    """
    known = np.asarray(values, dtype=float)[:budget]
    lowest = np.minimum.accumulate(np.where(np.isnan(known), np.inf, known))
    return np.pad(lowest, (0, budget - len(lowest)), mode="edge")


def difference(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Subtract, where two infinite values (no trial has succeeded yet) are equal."""
    values, others = (np.nan_to_num(some, posinf=_LARGE) for some in (values, others))
    return values - others


def trials_to_reach(curve: np.ndarray, target: float) -> float:
    """Find the first trial, counted from 1, that reaches a value; inf if none does.

    Args:
        curve: (budget,), as returned by `best_so_far`.
        target: the value to reach.
    """
    reached = np.flatnonzero(curve <= target)
    return float(reached[0] + 1) if len(reached) else float("inf")


def bootstrap(
    values: np.ndarray, statistic: Callable[..., np.ndarray] = np.median, seed: int = 0
) -> Estimate:
    """Estimate a statistic with its percentile interval (Efron 1979).

    Args:
        values: (n,); may contain inf.
        statistic: like `numpy.median`, with `axis`.
        seed: seed of the resampling.
    """
    values = np.asarray(values, dtype=float)
    rows = np.random.default_rng(seed).integers(len(values), size=(N_RESAMPLES, len(values)))
    low, high = _interval(statistic(values[rows], axis=1))
    return Estimate(float(statistic(values, axis=0)), float(low), float(high))


def band(curves: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the median curve with its pointwise interval, each (t,).

    Args:
        curves: (n, t).
        seed: seed of the resampling.
    """
    rows = np.random.default_rng(seed).integers(len(curves), size=(N_RESAMPLES // 4, len(curves)))
    low, high = _interval(np.median(curves[rows], axis=1))
    return np.median(curves, axis=0), low, high


def mean_over_tasks(groups: Sequence[np.ndarray], seed: int = 0) -> list[Estimate]:
    """Average over each task's seeds, then over tasks, resampling both.

    A task that is drawn k times has its seeds drawn anew each time.

    Args:
        groups: for each task (seeds, methods), one column per method.
        seed: seed of the resampling.

    Returns:
        One estimate per column.
    """
    rng = np.random.default_rng(seed)
    n_tasks = len(groups)
    means = np.mean([group.mean(axis=0) for group in groups], axis=0)
    times = rng.multinomial(n_tasks, np.full(n_tasks, 1 / n_tasks), size=N_RESAMPLES)
    resampled = np.zeros((N_RESAMPLES, len(means)))
    for task, group in enumerate(groups):
        n_seeds = len(group)
        counts = rng.multinomial(times[:, task] * n_seeds, np.full(n_seeds, 1 / n_seeds))
        resampled += counts @ group / n_seeds / n_tasks
    low, high = _interval(resampled)
    return [Estimate(*map(float, row)) for row in zip(means, low, high, strict=True)]


def ranks(values: np.ndarray) -> np.ndarray:
    """Rank along the last axis, 1 for the lowest; ties get their mean rank."""
    return stats.rankdata(values, axis=-1)


def signed_rank_test(differences: np.ndarray) -> float:
    """Compute the two-sided p value of Wilcoxon's signed-rank test of a zero median.

    Differences of 0 are left out, as in Wilcoxon (1945); p is 1 if there are no others.

    Args:
        differences: (n,).
    """
    if not np.any(differences):
        return 1.0
    return float(stats.wilcoxon(differences).pvalue)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Correct p values for their number (Holm 1979, A Simple Sequentially Rejective Test)."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    corrected = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty_like(p)
    result[order] = np.minimum(corrected, 1.0)
    return result


def verdict(differences: Sequence[np.ndarray]) -> Verdict:
    """Count the tasks with a significant difference, after Holm's correction over the tasks.

    Args:
        differences: for each task (seeds,), ours minus theirs.
    """
    significant = holm([signed_rank_test(d) for d in differences]) < SIGNIFICANT
    signs = np.array([_signed_rank_sum(d) for d in differences])
    wins, losses = int(np.sum(significant & (signs < 0))), int(np.sum(significant & (signs > 0)))
    return Verdict(wins, losses, len(signs) - wins - losses)


def _signed_rank_sum(differences: np.ndarray) -> float:
    return float(np.sum(np.sign(differences) * stats.rankdata(np.abs(differences))))


def _interval(resampled: np.ndarray) -> np.ndarray:
    """Pick the lower and upper quantile on the first axis; uninterpolated, as inf may occur."""
    last = len(resampled) - 1
    tail = round(last * (1 - LEVEL) / 2)
    return np.sort(resampled, axis=0)[[tail, last - tail]]
