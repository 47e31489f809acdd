from __future__ import annotations

import math

import numpy as np
from optuna.distributions import FloatDistribution
import pytest
from scipy.stats import spearmanr
import torch

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.space.prior import Prior
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.study.branches import read_branches
from optuna_llmbo.study.history import History
from optuna_llmbo.suggestion.candidates import Region
from optuna_llmbo.suggestion.decide import decide
from optuna_llmbo.suggestion.known import Known
from optuna_llmbo.surrogate.acquisition import AcquisitionName
from optuna_llmbo.surrogate.choices import Inputs
from optuna_llmbo.surrogate.durations import fit_log_seconds


PLANE = Inputs(2)


def durations(x: np.ndarray) -> np.ndarray:
    """Seconds over four orders of magnitude."""
    seconds: np.ndarray = 2.0 * np.exp(6 * x[:, 0] + 3 * x[:, 1] ** 2)
    return seconds


def points(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((n, 2))


def test_durations_are_foreseen() -> None:
    x, others = points(15, seed=0), points(40, seed=1)
    noisy = durations(x) * np.exp(np.random.default_rng(2).normal(0, 0.1, 15))
    predicted = fit_log_seconds(torch.from_numpy(x), PLANE, noisy)(torch.from_numpy(others))
    truth = np.log(durations(others))
    assert predicted.shape == (40,)
    assert spearmanr(predicted, truth).statistic > 0.95
    # in logarithms of seconds, up to a constant
    slope, _ = np.polyfit(truth, predicted, 1)
    assert slope == pytest.approx(1.0, abs=0.2)


def test_unknown_durations_are_left_out() -> None:
    x = points(20, seed=0)
    seconds = durations(x)
    seconds[::2] = math.nan
    known = np.isfinite(seconds)
    a = fit_log_seconds(torch.from_numpy(x), PLANE, seconds)(torch.from_numpy(x))
    b = fit_log_seconds(torch.from_numpy(x[known]), PLANE, seconds[known])(torch.from_numpy(x))
    np.testing.assert_allclose(a, b)


@pytest.mark.parametrize(
    "seconds",
    [
        [math.nan] * 4,
        [1.0, 9.0, math.nan, math.nan],
        [5.0] * 4,
        [0.0, 1e-9, 0.0, 1e-4],  # faster than can be told
    ],
    ids=str,
)
def test_too_little_to_go_by_is_no_preference(seconds: list[float]) -> None:
    log_seconds = fit_log_seconds(torch.from_numpy(points(4, seed=0)), PLANE, np.array(seconds))
    np.testing.assert_array_equal(log_seconds(torch.from_numpy(points(6, seed=1))), np.zeros(6))


SPACE = SearchSpace({"x": FloatDistribution(0.0, 1.0)})


def two_peaks(
    acquisition: AcquisitionName, cheap: str, cost_aware: bool, right: float = 1.0
) -> float:
    """Where a study on two peaks, one of which takes ten times as long, goes on.

    Args:
        acquisition: by which it is chosen.
        cheap: "left" or "right".
        cost_aware: whether the time counts.
        right: height of the right peak, that of the left being 1.
    """
    x = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    values = np.exp(-(((np.abs(x - 0.5) - 0.25) / 0.08) ** 2)) * np.where(x < 0.5, 1.0, right)
    seconds = np.where((x < 0.5) == (cheap == "left"), 10.0, 100.0)
    configurations = tuple({"x": float(place)} for place in x)
    history = History(
        configurations=configurations,
        targets=values[:, None],
        gaps=np.zeros(len(x)),
        seconds=seconds,
        constraints={},
        infeasible=(),
        pending=(),
        seen=frozenset(map(SPACE.key, configurations)),
    )
    known = Known(
        region=Region(read_branches((), SPACE.distributions)),
        history=history,
        sources=(),
        knowledge=Knowledge(),
        prior=Prior(SPACE, {}),
        seed=0,
    )
    sampler = LLMBOSampler(acquisition=acquisition, cost_aware=cost_aware, seed=0)
    return float(decide(known, sampler._engine.options, None).configuration["x"])


@pytest.mark.long
@pytest.mark.parametrize("acquisition", ["log_ei", "log_nei"])
def test_the_cheaper_of_two_equals_is_chosen(acquisition: AcquisitionName) -> None:
    left, right = (two_peaks(acquisition, cheap, cost_aware=True) for cheap in ("left", "right"))
    assert left == pytest.approx(0.25, abs=0.1)
    assert right == pytest.approx(0.75, abs=0.1)
    # who does not look at the cost goes the same way either time
    same = [two_peaks(acquisition, cheap, cost_aware=False) for cheap in ("left", "right")]
    assert same[0] == same[1]


def test_an_expensive_region_is_still_gone_to_where_it_is_better() -> None:
    """Time is weighed, not minimized."""
    assert two_peaks("log_ei", "left", cost_aware=True, right=3.0) == pytest.approx(0.75, abs=0.1)


def test_nothing_is_asked_of_the_durations_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("optuna_llmbo.suggestion.known.fit_log_seconds", fail)
    two_peaks("log_ei", "left", cost_aware=False)
    with pytest.raises(AssertionError):
        two_peaks("log_ei", "left", cost_aware=True)
