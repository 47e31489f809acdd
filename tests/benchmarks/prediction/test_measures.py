from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from scipy.stats import norm
import torch

from benchmarks.prediction import measures
from optuna_llmbo.surrogate.covariance import scaled_matern
from optuna_llmbo.surrogate.process import fit_process
from optuna_llmbo.surrogate.targets import Scale
from optuna_llmbo.surrogate.targets import TransformName
from optuna_llmbo.surrogate.targets import TRANSFORMS


OBSERVED = np.array([-2.0, 0.0, 1.0, 1.5, 3.0, 4.0, 4.5, 5.0])


def test_order_of_predictions() -> None:
    values = np.arange(40.0)
    found = measures.held_out(values**3, np.ones(40), values, OBSERVED, "winsorize")
    assert found["spearman"] == pytest.approx(1.0)
    assert found["percentile"] == pytest.approx(np.arange(10).mean() / 40)
    found = measures.held_out(-values, np.ones(40), values, OBSERVED, "winsorize")
    assert found["spearman"] == pytest.approx(-1.0)
    assert found["percentile"] == pytest.approx(np.arange(30, 40).mean() / 40)
    found = measures.held_out(np.zeros(40), np.ones(40), values, OBSERVED, "winsorize")
    assert found["spearman"] == 0.0


def test_density_of_winsorized_targets() -> None:
    """Standardized, also beyond the observed; what is below the fence counts as the fence."""
    low, middle = np.quantile(OBSERVED, [0.25, 0.75])
    fence = low - 1.5 * (middle - low)
    assert fence < OBSERVED.min()
    values = np.array([fence - 100, fence, -1.0, 2.0, 9.0])
    z = (np.maximum(values, fence) - OBSERVED.mean()) / OBSERVED.std()
    mean, deviation = np.linspace(-1, 1, 5), np.linspace(0.2, 2, 5)
    found = measures.negative_log_density(mean, deviation, values, OBSERVED, "winsorize")
    np.testing.assert_allclose(found, -norm.logpdf(z, mean, deviation))


def test_coverage() -> None:
    """Of values in units of the observed, those below the fence counting as the fence."""
    low, middle = np.quantile(OBSERVED, [0.25, 0.75])
    lowest = (low - 1.5 * (middle - low) - OBSERVED.mean()) / OBSERVED.std()
    z = np.array([-1.97, -1.95, 0.0, 1.95, 1.97])
    values = OBSERVED.mean() + z * OBSERVED.std()
    found = measures.coverage(np.zeros(5), np.ones(5), values, OBSERVED, "winsorize")
    assert found == pytest.approx(3 / 5)
    assert measures.coverage(np.ones(5), 3 * np.ones(5), values, OBSERVED, "winsorize") == 1.0
    far = np.array([-1e9])
    for mean, expected in ((lowest, 1.0), (lowest + 2.0, 0.0)):
        one = (np.array([mean]), np.ones(1), far, OBSERVED)
        assert measures.coverage(*one, "winsorize") == expected


def test_the_fence_is_that_of_the_scale() -> None:
    observed = np.append(OBSERVED, -1e6)
    assert measures.fence(observed) == Scale.of(observed, "winsorize").targets[0]
    assert measures.fence(np.array([0.0, 1.0, 1.0, 1.0, 1.0])) == 0.0


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_density_is_one_in_all(transform: TransformName) -> None:
    """On the winsorized scale, whatever scale the prediction is on."""
    step = 1e-3
    z = np.arange(-2.8, 8, step)
    values = OBSERVED.mean() + z * OBSERVED.std()
    found = measures.negative_log_density(
        np.full(len(z), 0.3), np.full(len(z), 0.5), values, OBSERVED, transform
    )
    assert np.exp(-found).sum() * step == pytest.approx(1.0, abs=0.01)


def test_targets_that_are_all_the_same() -> None:
    found = measures.held_out(
        np.zeros(3), np.ones(3), np.array([2.0, 2.0, 3.0]), np.full(4, 2.0), "winsorize"
    )
    assert np.isfinite(list(found.values())).all()


def test_densities_of_the_observed() -> None:
    """Against SciPy, and against fits that leave one out."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.random((8, 2)))
    y = torch.from_numpy(rng.normal(size=8))
    model = fit_process(x, y, lambda: scaled_matern(range(2), ard=True, weight_median=1.0))
    with torch.no_grad():
        noise, constant = float(model.likelihood.noise), float(model.mean_module.constant)
        k = model.covar_module(x).to_dense().numpy() + noise * np.eye(8)
    joint = multivariate_normal.logpdf(y.numpy(), np.full(8, constant), k) / 8
    left_out = []
    for i in range(8):
        rest = np.delete(np.arange(8), i)
        weights = np.linalg.solve(k[np.ix_(rest, rest)], k[rest, i])
        mean = constant + weights @ (y.numpy()[rest] - constant)
        variance = k[i, i] - weights @ k[rest, i]
        left_out.append(norm.logpdf(float(y[i]), mean, np.sqrt(variance)))
    found = measures.training(model)
    assert found["training_nlpd"] == pytest.approx(-joint, abs=1e-4)
    assert found["left_out_nlpd"] == pytest.approx(-np.mean(left_out), abs=1e-4)
    assert not model.training
