"""The posterior against GPyTorch's own, and what is drawn of it against conditioning by numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.choices import Inputs
from optuna_llmbo.surrogate.posterior import draw
from optuna_llmbo.surrogate.posterior import Drawn
from optuna_llmbo.surrogate.posterior import Posterior
from optuna_llmbo.surrogate.posterior import quasi_normal
from optuna_llmbo.surrogate.process import fit_surrogates
from optuna_llmbo.surrogate.process import Surrogates
from optuna_llmbo.surrogate.process import Views


N, P, M = 12, 3, 40


def points(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def complete(n: int, seed: int, q: int = 1) -> Tensor:
    """Features of complete trials of this study, for q objectives side by side."""
    x = torch.cat([points(n, P, seed=seed), torch.zeros(n, 2, dtype=torch.float64)], dim=1)
    return x.repeat(1, q)


@pytest.fixture(scope="module", params=["plain", "with its own trials"])
def surrogates(request: pytest.FixtureRequest) -> Surrogates:
    """Processes of two objectives."""
    x = points(N, P, seed=0)
    y = torch.stack([torch.sin(5 * x).sum(dim=1), (x**2).sum(dim=1)], dim=1)
    y = (y - y.mean(dim=0)) / y.std(dim=0)
    views = Views(x)
    if request.param != "plain":
        source = torch.tensor([0.0] * 8 + [1.0] * 4, dtype=torch.float64)
        gap = torch.where(source > 0, 0.0, torch.linspace(0, 0.6, N, dtype=torch.float64))
        views = Views(x, None, gap, source)
    return fit_surrogates(views, y, "numeric", Inputs(P), Views(x), Ablation(members=1))


def test_moments_are_those_of_gpytorch(surrogates: Surrogates) -> None:
    x = complete(M, seed=1, q=2)
    mean, deviation = surrogates.moments(x)
    assert mean.shape == deviation.shape == (M, 2)
    for j, part in enumerate(surrogates.parts):
        with torch.no_grad():
            expected = part.model.posterior(x[:, : P + 2])
        torch.testing.assert_close(mean[:, j], expected.mean[:, 0], atol=1e-8, rtol=0)
        torch.testing.assert_close(
            deviation[:, j].square(), expected.variance[:, 0], atol=1e-8, rtol=0
        )


def test_given_a_draw_the_moments_are_those_of_conditioning(surrogates: Surrogates) -> None:
    places, x = complete(5, seed=2, q=2), complete(M, seed=3, q=2)
    second = surrogates.posteriors[1]
    drawn = Drawn(second, places, torch.from_numpy(quasi_normal(8, 5, seed=0)))
    with torch.no_grad():
        mean, deviation = drawn.moments(x)
        joint = second.process.posterior(torch.cat([places, x])[:, : P + 2])
    centre = joint.mean[:, 0].numpy()
    covariance = joint.distribution.covariance_matrix.numpy()
    weights = np.linalg.solve(covariance[:5, :5], covariance[:5, 5:])
    away = drawn.values.detach().numpy() - centre[:5]
    np.testing.assert_allclose(mean.numpy(), centre[5:] + away @ weights, atol=1e-5)
    left = np.diag(covariance[5:, 5:]) - (weights * covariance[:5, 5:]).sum(axis=0)
    np.testing.assert_allclose(deviation.numpy() ** 2, left, atol=1e-6)


def test_draws_have_the_posterior_s_moments(surrogates: Surrogates) -> None:
    places = complete(4, seed=4, q=2)
    with torch.no_grad():
        both = draw(surrogates.posteriors, places, n=4096, seed=0)
    for part, drawn in zip(surrogates.parts, both, strict=True):
        with torch.no_grad():
            expected = part.model.posterior(places[:, : P + 2])
        covariance = expected.distribution.covariance_matrix.numpy()
        values = drawn.values.detach().numpy()
        scale = np.sqrt(np.diag(covariance)).max()
        np.testing.assert_allclose(
            values.mean(axis=0), expected.mean[:, 0].numpy(), atol=0.02 * scale
        )
        np.testing.assert_allclose(np.cov(values.T), covariance, atol=0.03 * scale**2)
    one, other = (drawn.values.detach().numpy()[:, 0] for drawn in both)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03  # of different objectives


def test_of_no_places_nothing_is_known(surrogates: Surrogates) -> None:
    x = complete(M, seed=1, q=2)
    (first, _) = surrogates.posteriors
    with torch.no_grad():
        (drawn,) = draw([first], x[:0], n=2, seed=0)
        mean, deviation = drawn.moments(x)
        expected, variance = first.moments(x)
    assert drawn.values.shape == (2, 0)
    torch.testing.assert_close(mean, expected.expand(2, M))
    torch.testing.assert_close(deviation, variance.sqrt())


def test_the_same_place_twice_has_the_same_value(surrogates: Surrogates) -> None:
    places = complete(3, seed=2)
    again = torch.cat([places, places])
    with torch.no_grad():
        (drawn,) = draw([Posterior(surrogates.parts[0].model)], again, n=4, seed=0)
        _, deviation = drawn.moments(places)
    np.testing.assert_allclose(drawn.values[:, :3], drawn.values[:, 3:], atol=1e-2)
    assert float(deviation.max()) < 1e-2


def test_more_draws_than_a_sobol_sequence_has_dimensions() -> None:
    normal = quasi_normal(2, 21_300, seed=0)
    assert normal.shape == (2, 21_300) and np.isfinite(normal).all()
    assert abs(np.corrcoef(normal[0, :90], normal[0, 21_201:21_291])[0, 1]) < 0.5
