"""The marginal likelihood of a Gaussian process and its maximization.

Shapes: n observed.
"""

from __future__ import annotations

from typing import Any

from botorch.models import SingleTaskGP
import numpy as np
import scipy.optimize
import torch
from torch import Tensor


_TOLERANCE = 0.01
"""The fit ends when a step raises the log likelihood by less than this."""
_MAX_ITERATIONS = 200
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


class _GaussianLogDensity(torch.autograd.Function):
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

    L-BFGS-B maximizes the marginal likelihood times the priors' densities (Rasmussen & Williams
    2006, eq. 2.30).

    Raises:
        torch.linalg.LinAlgError: if no hyperparameters on the way give a finite likelihood.
    """
    model.train()
    (observed,), targets = model.train_inputs, model.train_targets
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    sizes = [weight.numel() for weight in weights]
    start = torch.cat([weight.detach().reshape(-1) for weight in weights]).numpy()
    best, best_loss, n = start, np.inf, len(targets)

    def place(values: np.ndarray) -> None:
        with torch.no_grad():
            parts = torch.from_numpy(values).split(sizes)
            for weight, part in zip(weights, parts, strict=True):
                weight.copy_(part.view_as(weight))

    def loss_and_gradient(values: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best, best_loss
        place(values)
        try:
            loss = -_log_posterior(model, observed, targets) / n
            gradients = torch.autograd.grad(loss, weights)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            return np.inf, np.zeros_like(values)
        if loss.item() < best_loss:
            best, best_loss = values.copy(), loss.item()
        return loss.item(), torch.cat([part.reshape(-1) for part in gradients]).numpy()

    scipy.optimize.minimize(
        loss_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"ftol": _TOLERANCE / n, "maxiter": _MAX_ITERATIONS},
    )
    place(best)
    model.eval()
    if not np.isfinite(best_loss):
        raise torch.linalg.LinAlgError(  # type: ignore[attr-defined]
            "no hyperparameters give a finite likelihood"
        )


def _log_posterior(model: SingleTaskGP, observed: Tensor, targets: Tensor) -> Tensor:
    """Log density of targets and hyperparameters, up to a constant."""
    n = len(targets)
    noise = model.likelihood.noise * torch.eye(n, dtype=observed.dtype)
    covariance = model.covar_module(observed).to_dense() + noise
    total = _GaussianLogDensity.apply(covariance, targets - model.mean_module(observed))
    for _, module, prior, closure, _ in model.named_priors():
        total = total + prior.log_prob(closure(module)).sum()
    return total
