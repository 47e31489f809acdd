"""The joint posterior against GPyTorch's own, which computes every set of points anew."""

from __future__ import annotations

from botorch.models import ModelListGP
from botorch.models import SingleTaskGP
from botorch.models.model import Model
import pytest
import torch
from torch import Tensor

from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.feasibility import fit_constraints
from optuna_llmbo.surrogate.joint_posterior import JointPosteriors
from optuna_llmbo.surrogate.process import fit_surrogates
from optuna_llmbo.surrogate.process import Views


N, P, M = 12, 3, 40


def points(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sets(d: int, shared: int, own: int, seed: int = 1) -> Tensor:
    """M sets: the same points first, then each its own, then the first shared one again."""
    same = points(shared, d, seed=seed).expand(M, shared, d)
    return torch.cat([same, points(M, own, d, seed=seed + 1), same[:, :1]], dim=1)


@pytest.fixture(scope="module", params=["one", "two, one with its own trials", "with constraints"])
def models(request: pytest.FixtureRequest) -> tuple[list[SingleTaskGP], Model]:
    """The processes, and BoTorch's model of the same outputs."""
    x = points(N, P, seed=0)
    y = torch.stack([torch.sin(5 * x).sum(dim=1), (x**2).sum(dim=1)], dim=1)
    y = (y - y.mean(dim=0)) / y.std(dim=0)
    if request.param == "one":
        model = fit_surrogates(Views(x), y[:, :1], "numeric", Views(x), Ablation()).model
        return [model], model
    if request.param == "with constraints":
        one = fit_surrogates(Views(x), y[:, :1], "numeric", Views(x), Ablation())
        limits = fit_constraints(
            one.features(Views(x)), P, {"c": y[:, 1].numpy()}, points(2, P, seed=5)
        )
        return [one.model, *limits], ModelListGP(one.model, *limits)
    source = torch.tensor([0.0] * 8 + [1.0] * 4, dtype=torch.float64)
    gap = torch.where(source > 0, 0.0, torch.linspace(0, 0.6, N, dtype=torch.float64))
    views = Views(x, None, gap, source)
    model = fit_surrogates(views, y, "numeric", Views(x), Ablation()).model
    return list(model.models), model


@pytest.mark.parametrize(("shared", "own"), [(1, 1), (6, 1), (4, 3)])
def test_equal_to_the_posterior_of_every_set(
    models: tuple[list[SingleTaskGP], Model], shared: int, own: int
) -> None:
    processes, model = models
    x = sets(_width(model), shared, own)
    x[..., P : P + 2] = x[..., -2:] = 0  # complete, of this study
    with torch.no_grad():
        expected, ours = model.posterior(x), JointPosteriors(processes).posterior(x)
    torch.testing.assert_close(ours.mean, expected.mean, atol=1e-9, rtol=0)
    torch.testing.assert_close(
        ours.distribution.covariance_matrix,
        expected.distribution.covariance_matrix,
        atol=1e-8,
        rtol=0,
    )


def test_one_set_and_the_same_set_over_and_over(
    models: tuple[list[SingleTaskGP], Model],
) -> None:
    processes, model = models
    x = torch.zeros(5, _width(model), dtype=torch.float64)
    x[:, :P] = points(5, P, seed=3)
    ours = JointPosteriors(processes)
    with torch.no_grad():
        expected = model.posterior(x).mean
        torch.testing.assert_close(ours.posterior(x).mean, expected, atol=1e-9, rtol=0)
        again = ours.posterior(x.expand(3, *x.shape)).mean
    torch.testing.assert_close(again, expected.expand_as(again), atol=1e-9, rtol=0)


def _width(model: Model) -> int:
    """Columns that a model takes: those of its parts side by side where it filters them."""
    parts = list(model.models) if isinstance(model, ModelListGP) else [model]
    own = parts[0].train_inputs[0].shape[-1]
    return own * len(parts) if getattr(parts[0], "input_transform", None) else own
