"""The joint posterior of many candidates, each beside the same other points.

Noisy expected improvement needs a candidate's joint posterior with the observed and the running
configurations: m sets of points that differ in one point each. Evaluated set by set, most
covariances are computed m times; here each is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from botorch.models import SingleTaskGP
from botorch.models.model import Model
from botorch.posteriors import GPyTorchPosterior
from gpytorch.distributions import MultitaskMultivariateNormal
from gpytorch.distributions import MultivariateNormal
from linear_operator import to_linear_operator
from linear_operator.utils.cholesky import psd_safe_cholesky
import torch
from torch import Tensor


class JointPosteriors(Model):
    """Fitted Gaussian processes side by side, as BoTorch's acquisition functions take them.

    Args:
        processes: one for each output; fitted, with inferred noise. They must not change later.
    """

    def __init__(self, processes: Sequence[SingleTaskGP]) -> None:
        super().__init__()
        self._parts = [_Process.of(process) for process in processes]

    @property
    def num_outputs(self) -> int:
        """Number of processes."""
        return len(self._parts)

    @property
    def batch_shape(self) -> torch.Size:
        """Empty: no process is a batch."""
        return torch.Size([])

    def posterior(self, X: Tensor, *_: Any, **__: Any) -> GPyTorchPosterior:
        """The noise-free joint posterior at s points (s, columns), or m sets (m, s, columns)."""
        sets = X if X.ndim > 2 else X[None]
        differs = (sets != sets[:1]).any(dim=2).any(dim=0)
        moments = [part.moments(sets, differs) for part in self._parts]
        if X.ndim == 2:
            moments = [(mean[0], covariance[0]) for mean, covariance in moments]
        normals = [MultivariateNormal(mean, to_linear_operator(c)) for mean, c in moments]
        if len(normals) == 1:
            return GPyTorchPosterior(normals[0])
        return GPyTorchPosterior(MultitaskMultivariateNormal.from_independent_mvns(normals))


@dataclass(frozen=True)
class _Process:
    """A fitted process with what its posterior needs everywhere."""

    process: SingleTaskGP
    observed: Tensor
    """(n, columns) features."""
    root: Tensor
    """(n, n) lower Cholesky factor of the observations' covariance, noise included."""
    weights: Tensor
    """(n,): that covariance's inverse times the observations' distances from the mean."""

    @classmethod
    def of(cls, process: SingleTaskGP) -> _Process:
        process.eval()
        (observed,) = process.train_inputs
        noise = process.likelihood.noise * torch.eye(len(observed), dtype=observed.dtype)
        root = psd_safe_cholesky(process.covar_module(observed).to_dense() + noise)
        residual = (process.train_targets - process.mean_module(observed))[:, None]
        weights = torch.cholesky_solve(residual, root)[:, 0]
        return cls(process, observed, root, weights)

    def moments(self, sets: Tensor, differs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (m, s) and covariance (m, s, s) at m sets of s points (Rasmussen & Williams 2006,
        eq. 2.25 and 2.26).

        Args:
            sets: (m, s, columns).
            differs: (s,) bool: positions at which the sets differ.
        """
        m, q, _ = sets.shape
        covariance = self.process.covar_module
        shared = self.process.transform_inputs(sets[0, ~differs])
        mean_shared, half_shared = self._seen_from_observed(shared)
        among_shared = covariance(shared).to_dense() - half_shared.T @ half_shared
        if not differs.any():
            return mean_shared.expand(m, q), among_shared.expand(m, q, q)
        own = self.process.transform_inputs(sets[:, differs])
        points = own.flatten(0, 1)
        mean_own, half_own = self._seen_from_observed(points)
        halves = half_own.T.reshape(m, -1, len(self.observed))
        between = covariance(points, shared).to_dense() - half_own.T @ half_shared

        s, o = (torch.nonzero(place)[:, 0] for place in (~differs, differs))
        mean, whole = sets.new_empty(m, q), sets.new_empty(m, q, q)
        mean[:, s] = mean_shared
        mean[:, o] = mean_own.reshape(m, -1)
        whole[:, s[:, None], s] = among_shared
        whole[:, o[:, None], s] = between.reshape(m, len(o), len(s))
        whole[:, s[:, None], o] = whole[:, o[:, None], s].transpose(1, 2)
        whole[:, o[:, None], o] = covariance(own).to_dense() - halves @ halves.transpose(1, 2)
        return mean, whole

    def _seen_from_observed(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean at m points, (m,), and root^-1 times their covariance, (n, m)."""
        between = self.process.covar_module(self.observed, points).to_dense()
        mean = self.process.mean_module(points) + between.T @ self.weights
        return mean, torch.linalg.solve_triangular(self.root, between, upper=False)
