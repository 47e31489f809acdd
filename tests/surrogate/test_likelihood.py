"""The marginal likelihood's value, gradients and maximum."""

from __future__ import annotations

import math
from unittest import mock

from gpytorch.mlls import ExactMarginalLogLikelihood
import numpy as np
import pytest
from scipy.stats import multivariate_normal
import torch
from torch import Tensor

from optuna_llmbo.surrogate import likelihood
from optuna_llmbo.surrogate.covariance import Matern52
from optuna_llmbo.surrogate.covariance import scaled_matern
from optuna_llmbo.surrogate.likelihood import cholesky
from optuna_llmbo.surrogate.likelihood import GaussianLogDensity
from optuna_llmbo.surrogate.likelihood import maximize_likelihood
from optuna_llmbo.surrogate.process import fit_process


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def data(n: int = 30) -> tuple[Tensor, Tensor]:
    x = random(n, 2)
    y = torch.sin(4 * x[:, 0]) + x[:, 1] ** 2 + 0.1 * random(n, seed=1)
    return x, (y - y.mean()) / y.std()


def test_the_density_is_that_of_scipy() -> None:
    root, residuals = random(5, 5), random(5, seed=2)
    covariance = root @ root.T + 0.1 * torch.eye(5, dtype=torch.float64)
    found = GaussianLogDensity.apply(covariance, residuals).item()
    expected = multivariate_normal(cov=covariance.numpy()).logpdf(residuals.numpy())
    assert found == pytest.approx(expected + 5 * math.log(2 * math.pi) / 2)


def test_the_gradients_are_right() -> None:
    def density(root: Tensor, residuals: Tensor) -> Tensor:
        covariance = root @ root.T + torch.eye(4, dtype=torch.float64)
        value: Tensor = GaussianLogDensity.apply(covariance, residuals)
        return value

    inputs = random(4, 4).requires_grad_(), random(4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(density, inputs)


def test_the_maximum_is_one() -> None:
    """Of GPyTorch's likelihood with priors: no small step raises it by more than a trifle."""
    x, y = data()
    model = fit_process(x, y, lambda: scaled_matern(range(2), ard=True, weight_median=1.0))
    mll = ExactMarginalLogLikelihood(model.likelihood, model)
    model.train()

    def value() -> float:
        with torch.no_grad():
            return float(mll(model(x), y))

    best = value()
    for weight in model.parameters():
        for step in (-0.1, 0.1):
            with torch.no_grad():
                weight += step
            assert value() < best + 2e-4
            with torch.no_grad():
                weight -= step


def test_a_matrix_that_is_hardly_positive_definite_has_a_root() -> None:
    ones = torch.ones(6, 6, dtype=torch.float64)
    root = cholesky(ones)
    torch.testing.assert_close(root @ root.T, ones, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bad", [-torch.eye(3, dtype=torch.float64), torch.full((3, 3), math.nan)])
def test_a_matrix_without_a_root_is_an_error(bad: Tensor) -> None:
    with pytest.raises(torch.linalg.LinAlgError, match="of 3 points is not positive"):  # type: ignore[attr-defined]
        cholesky(bad.to(torch.float64))


def test_a_step_without_a_likelihood_is_stepped_back_from() -> None:
    x, y = data()
    kernel = scaled_matern(range(2), ard=True, weight_median=1.0)
    plain = fit_process(x, y, lambda: kernel)
    calls = 0

    def sometimes(matrix: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise torch.linalg.LinAlgError("no root")  # type: ignore[attr-defined]
        return cholesky(matrix)

    with mock.patch.object(likelihood, "cholesky", sometimes):
        model = fit_process(x, y, lambda: scaled_matern(range(2), ard=True, weight_median=1.0))
    assert calls > 4
    for found, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=0.1, rtol=0.1)


def test_without_any_likelihood_it_is_an_error() -> None:
    x, y = data()
    model = fit_process(x, y, lambda: scaled_matern(range(2), ard=True, weight_median=1.0))
    model.train_targets = torch.full_like(y, math.nan)
    with pytest.raises(torch.linalg.LinAlgError, match="no hyperparameters"):  # type: ignore[attr-defined]
        maximize_likelihood(model)


@pytest.mark.parametrize("columns", [1, 3], ids=["one lengthscale", "one a column"])
def test_the_kernel_is_matern_with_right_gradients(columns: int) -> None:
    kernel = Matern52(ard_num_dims=columns if columns > 1 else None).to(torch.float64)
    kernel.lengthscale = 0.2 + random(1, columns)
    x, y = random(6, 3), random(5, 3, seed=1)
    r = np.sqrt(5) * np.linalg.norm((x[:, None] - y[None]) / kernel.lengthscale.detach(), axis=2)
    expected = (1 + r + r**2 / 3) * np.exp(-r)
    with torch.no_grad():
        np.testing.assert_allclose(kernel(x, y).to_dense(), expected, rtol=1e-12)
        np.testing.assert_allclose(kernel(x[:5], y, diag=True), np.diag(expected), rtol=1e-12)
        # next to each other, and the same
        near = torch.cat([x, x + 1e-9])
        np.testing.assert_allclose(kernel(near).to_dense()[:6, 6:].diagonal(), 1, rtol=1e-12)

    def of(x1: Tensor, x2: Tensor, raw: Tensor) -> Tensor:
        with mock.patch.object(Matern52, "lengthscale", raw):
            matrix: Tensor = kernel.forward(x1, x2)
        return matrix

    inputs = (x.clone(), y.clone(), kernel.lengthscale.detach().clone())
    assert torch.autograd.gradcheck(of, tuple(part.requires_grad_() for part in inputs))
