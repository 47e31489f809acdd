"""Hyperparameters drawn from their posterior: few trials leave many of them as likely as the best.

Shapes: P hyperparameters, M draws.
"""

from __future__ import annotations

from collections.abc import Callable
import copy
import math

from botorch.models import SingleTaskGP
import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector
from torch.nn.utils import vector_to_parameters

from optuna_llmbo.surrogate.likelihood import log_posterior
from optuna_llmbo.surrogate.posterior import quasi_normal


_N_DRAWN = 24
"""M."""
_STEP = 1e-2
_LEAST_CURVATURE = 0.25
"""Where the density is flatter than this, or not even a peak, draws go no farther than 2."""
_FARTHEST = 0.7
"""How far the peak may lie from the fitted hyperparameters."""


def draw_processes(process: SingleTaskGP, n: int, seed: int) -> list[SingleTaskGP]:
    """Draw n processes whose hyperparameters have the posterior's density.

    A normal density around the fitted hyperparameters, with the curvature of the log posterior
    (Laplace's approximation; Rasmussen & Williams 2006, section 3.4), proposes M; n are resampled
    by importance. Densities are of the unconstrained parameters that the fit moves.

    Args:
        process: fitted; it stays as it is.
        n: number of processes, of which some may be equal.
        seed: decides the draws.

    Returns:
        The processes, in eval mode; only the given one if there is nothing to learn from.
    """
    if n < 2 or not bool(process.train_targets.any()):
        return [process]
    process = copy.deepcopy(process)
    log_density = _log_density(process)
    fitted = parameters_to_vector(process.parameters()).detach().clone()
    gradient = _gradient(process, log_density, fitted)
    curvature = torch.stack(
        [
            (gradient - _gradient(process, log_density, fitted + step)) / _STEP
            for step in _STEP * torch.eye(len(fitted), dtype=fitted.dtype)
        ]
    )
    values, vectors = torch.linalg.eigh((curvature + curvature.T) / 2)
    values = values.clamp_min(_LEAST_CURVATURE)
    step = vectors @ (vectors.T @ gradient / values)
    peak = fitted + step * min(1.0, _FARTHEST / max(float(step.abs().max()), 1e-12))
    if _value(process, log_density, peak) < _value(process, log_density, fitted):
        peak = fitted
    normals = torch.from_numpy(quasi_normal(_N_DRAWN, len(fitted), seed))
    drawn = peak + normals @ (vectors * values.rsqrt()).T
    logs = np.array([_value(process, log_density, point) for point in drawn])
    logs += normals.square().sum(dim=1).numpy() / 2
    if not np.isfinite(logs).any():
        drawn, logs = fitted[None], np.zeros(1)
    shares = np.exp(logs - logs.max())
    places = (np.arange(n) + 0.5) / n
    chosen = np.searchsorted(np.cumsum(shares) / shares.sum(), places)
    return [_with(process, drawn[i]) for i in np.minimum(chosen, len(drawn) - 1)]


def _log_density(process: SingleTaskGP) -> Callable[[], Tensor]:
    """Make the function that computes the log posterior of the unconstrained hyperparameters."""
    posterior = log_posterior(process)
    constrained = [
        (parameter, constraint)
        for name, parameter in process.named_parameters()
        if (constraint := process.constraint_for_parameter_name(name)) is not None
    ]

    def log_density() -> Tensor:
        total = posterior()
        for parameter, constraint in constrained:
            with torch.enable_grad():
                moved = constraint.transform(parameter).sum()
                (rate,) = torch.autograd.grad(moved, parameter, create_graph=True)
            total = total + rate.log().sum()
        return total

    return log_density


def _gradient(process: SingleTaskGP, log_density: Callable[[], Tensor], point: Tensor) -> Tensor:
    vector_to_parameters(point, process.parameters())
    parameters = list(process.requires_grad_(True).parameters())
    gradients = torch.autograd.grad(log_density(), parameters)
    return torch.cat([part.reshape(-1) for part in gradients])


def _value(process: SingleTaskGP, log_density: Callable[[], Tensor], point: Tensor) -> float:
    vector_to_parameters(point, process.parameters())
    try:
        value = float(log_density().detach())
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        return -math.inf
    return value if math.isfinite(value) else -math.inf


def _with(process: SingleTaskGP, point: Tensor) -> SingleTaskGP:
    vector_to_parameters(point, process.parameters())
    return copy.deepcopy(process).requires_grad_(False).eval()
