"""The marginal likelihood of a Gaussian process and its maximization.

Shapes: n observed.
"""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import Any

from botorch.models import SingleTaskGP
from gpytorch.priors import LogNormalPrior
from gpytorch.priors import Prior
import torch
from torch import Tensor


_TOLERANCE = 1e-4
"""The fit ends when a step raises the log likelihood by less than this for each observation."""
_MAX_ITERATIONS = 30
_IMPOSSIBLE = 1e3
"""Stands for the loss where there is no likelihood, which the line search then steps back from."""
_JITTERS = (0.0, 1e-8, 1e-6, 1e-4)


def cholesky(matrix: Tensor) -> Tensor:
    """The lower Cholesky factor (n, n), with as little added to the diagonal as it takes.

    Raises:
        torch.linalg.LinAlgError: if the matrix is not finite, or far from positive definite.
    """
    identity = torch.eye(len(matrix), dtype=matrix.dtype)
    for jitter in _JITTERS:
        root, info = torch.linalg.cholesky_ex(matrix + jitter * identity if jitter else matrix)
        if not info.any() and bool(root.isfinite().all()):
            return root
    raise torch.linalg.LinAlgError(  # type: ignore[attr-defined]
        f"a covariance matrix of {len(matrix)} points is not positive definite"
    )


class GaussianLogDensity(torch.autograd.Function):
    """Log density of residuals (n,) under a covariance matrix (n, n), up to a constant.

    The gradients are written out (Rasmussen & Williams 2006, eq. 5.9): those of a Cholesky
    decomposition take several times longer.
    """

    @staticmethod
    def forward(ctx: Any, covariance: Tensor, residuals: Tensor) -> Tensor:
        """The log density."""
        root = cholesky(covariance)
        weights = torch.cholesky_solve(residuals[:, None], root)[:, 0]
        ctx.save_for_backward(root, weights)
        return -residuals @ weights / 2 - root.diagonal().log().sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients with respect to covariance and residuals."""
        (gradient,) = gradients
        root, weights = ctx.saved_tensors
        of_covariance = (torch.outer(weights, weights) - torch.cholesky_inverse(root)) / 2
        return gradient * of_covariance, -gradient * weights


def maximize_likelihood(model: SingleTaskGP) -> None:
    """Fit a process's hyperparameters in place from their values; leave it in eval mode.

    L-BFGS maximizes the marginal likelihood times the priors' densities (Rasmussen & Williams
    2006, eq. 2.30). It is PyTorch's: SciPy's waits for threads of a BLAS library that only a
    setting for the whole process could stop.

    Targets that are all zero, as equal ones become, leave the hyperparameters at their starting
    values: they would only shrink the variance, also where nothing was tried.

    Raises:
        torch.linalg.LinAlgError: if no hyperparameters on the way give a finite likelihood.
    """
    if not bool(model.train_targets.any()):
        model.eval()
        return
    model.train().requires_grad_(True)
    n, log_density = len(model.train_targets), log_posterior(model)
    weights = list(model.parameters())
    best, best_loss = [weight.detach().clone() for weight in weights], math.inf
    optimizer = torch.optim.LBFGS(
        weights,
        max_iter=_MAX_ITERATIONS,
        tolerance_change=_TOLERANCE,
        history_size=_MAX_ITERATIONS,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        nonlocal best, best_loss
        optimizer.zero_grad(set_to_none=False)
        try:
            loss = -log_density() / n
            loss.backward()
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            return model.train_targets.new_tensor(_IMPOSSIBLE)
        if loss.item() < best_loss:
            best, best_loss = [weight.detach().clone() for weight in weights], loss.item()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        for weight, value in zip(weights, best, strict=True):
            weight.copy_(value)
            weight.grad = None
    model.eval()
    if not math.isfinite(best_loss):
        raise torch.linalg.LinAlgError(  # type: ignore[attr-defined]
            "no hyperparameters give a finite likelihood"
        )


def left_out_density(model: SingleTaskGP) -> float:
    """Compute the mean log density of each target given the others (Rasmussen & Williams 2006,
    eq. 5.10 to 5.12)."""
    (observed,), targets = model.train_inputs, model.train_targets
    noise = model.likelihood.noise * torch.eye(len(targets), dtype=observed.dtype)
    inverse = torch.cholesky_inverse(cholesky(model.covar_module(observed).to_dense() + noise))
    variance = 1 / inverse.diagonal()
    residual = inverse @ (targets - model.mean_module(observed)) * variance
    densities = (residual.square() / variance + (2 * math.pi * variance).log()) / -2
    return float(densities.mean())


def _log_density(prior: Prior, values: Tensor) -> Tensor:
    """The sum of a prior's log densities at some values, up to a constant."""
    if not isinstance(prior, LogNormalPrior):
        density: Tensor = prior.log_prob(values).sum()
        return density
    logs = values.log()  # a fraction of the time that the chain of transforms takes
    return -(((logs - prior.loc) / prior.scale).square() / 2 + logs).sum()


def log_posterior(model: SingleTaskGP) -> Callable[[], Tensor]:
    """Make the function that computes the log density of targets and hyperparameters, up to a
    constant."""
    (observed,), targets = model.train_inputs, model.train_targets
    identity = torch.eye(len(targets), dtype=observed.dtype)
    # GPyTorch names the priors of a module that kernels share once for each kernel.
    priors = {
        (id(module), id(prior)): (prior, closure, module)
        for _, module, prior, closure, _ in model.named_priors()
    }

    def log_density() -> Tensor:
        noisy = model.covar_module(observed).to_dense() + model.likelihood.noise * identity
        total = GaussianLogDensity.apply(noisy, targets - model.mean_module(observed))
        for prior, closure, module in priors.values():
            total = total + _log_density(prior, closure(module))
        return total

    return log_density
