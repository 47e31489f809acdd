"""The posterior of a fitted Gaussian process, and what it becomes once some values are known.

Shapes: n observed, m points, s points whose values are drawn, N draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from botorch.models import SingleTaskGP
import numpy as np
from scipy.stats import norm
from scipy.stats import qmc
import torch
from torch import Tensor

from optuna_llmbo.surrogate.likelihood import cholesky


_LEAST_VARIANCE = 1e-12
_CLIP = 1e-9


@dataclass(frozen=True)
class Posterior:
    """A fitted Gaussian process, noise-free, given its observations (Rasmussen & Williams 2006,
    eq. 2.25 and 2.26)."""

    process: SingleTaskGP
    first_column: int = 0
    """Where the process's own columns begin in the points that it is asked about."""

    @property
    def observed(self) -> Tensor:
        """(n, columns) features."""
        features: Tensor = self.process.train_inputs[0]
        return features

    def _own(self, points: Tensor) -> Tensor:
        start = self.first_column
        return points[:, start : start + self.observed.shape[1]]

    def moments(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance at m points (m, columns), each (m,)."""
        mean, half = self.seen_from_observed(points)
        prior = self.prior(points, diag=True)
        return mean, (prior - half.square().sum(dim=0)).clamp_min(_LEAST_VARIANCE)

    def prior(self, left: Tensor, right: Tensor | None = None, *, diag: bool = False) -> Tensor:
        """The prior covariance of points, (left, right), or its diagonal.

        Args:
            left: (left, columns).
            right: (right, columns); None: the same points.
            diag: whether only the diagonal is wanted, (left,).
        """
        kernel, left = self.process.covar_module, self._own(left)
        if diag:
            return kernel(left, diag=True)
        both = (left,) if right is None else (left, self._own(right))
        return kernel(*both).to_dense()

    def seen_from_observed(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Mean at m points, (m,), and root^-1 times their prior covariance with the observations,
        (n, m)."""
        own = self._own(points)
        between = self.process.covar_module(self.observed, own).to_dense()
        mean = self.process.mean_module(own) + between.T @ self._weights
        return mean, torch.linalg.solve_triangular(self._root, between, upper=False)

    @cached_property
    def _root(self) -> Tensor:
        """Lower Cholesky factor of the observations' covariance, noise included, (n, n)."""
        n = len(self.observed)
        noise = self.process.likelihood.noise * torch.eye(n, dtype=self.observed.dtype)
        return cholesky(self.process.covar_module(self.observed).to_dense() + noise)

    @cached_property
    def _weights(self) -> Tensor:
        """The inverse of that covariance times the observations' distances from the mean, (n,)."""
        residuals = self.process.train_targets - self.process.mean_module(self.observed)
        return torch.cholesky_solve(residuals[:, None], self._root)[:, 0]


class Drawn:
    """Values of a process drawn at s points, and its posterior given each draw.

    Given the values at some points, a process has another mean for each draw and one variance. So
    what m other points would add is computed from (m, s) covariances, without a joint posterior
    for each of them.

    Args:
        posterior: of the process.
        points: (s, columns) where values are drawn; s may be 0.
        normals: (N, s) standard normal, the same for the same draws.
    """

    def __init__(self, posterior: Posterior, points: Tensor, normals: Tensor) -> None:
        self._posterior = posterior
        self._points = points
        mean, self._half = posterior.seen_from_observed(points)
        self._root = cholesky(posterior.prior(points) - self._half.T @ self._half)
        # root^-T normals^T: the inverse covariance times each draw's distance from the mean
        self._weights = torch.linalg.solve_triangular(self._root.T, normals.T, upper=True)
        self.values = mean + normals @ self._root.T
        """(N, s)."""

    def moments(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Mean for each draw (N, m) and standard deviation (m,) at m points (m, columns)."""
        mean, half = self._posterior.seen_from_observed(points)
        prior = self._posterior.prior(points, diag=True)
        between = self._posterior.prior(self._points, points) - self._half.T @ half
        known = torch.linalg.solve_triangular(self._root, between, upper=False)
        variance = prior - half.square().sum(dim=0) - known.square().sum(dim=0)
        return mean + self._weights.T @ between, variance.clamp_min(_LEAST_VARIANCE).sqrt()


def draw(posteriors: Sequence[Posterior], points: Tensor, n: int, seed: int) -> list[Drawn]:
    """Draw values of independent processes at s points, from one scrambled Sobol sequence.

    Args:
        posteriors: of the processes.
        points: (s, columns).
        n: number of draws, a power of two.
        seed: decides the draws.
    """
    s = len(points)
    normals = quasi_normal(n, s * len(posteriors), seed)
    parts = torch.from_numpy(normals).split(s, dim=1) if s else [points.new_zeros(n, 0)]
    return [
        Drawn(posterior, points, parts[i if s else 0]) for i, posterior in enumerate(posteriors)
    ]


def quasi_normal(n: int, width: int, seed: int) -> np.ndarray:
    """A scrambled Sobol sequence as standard normal numbers, (n, width) float64."""
    if width == 0:
        return np.zeros((n, 0))
    most = qmc.Sobol.MAXDIM
    blocks = []
    for start in range(0, width, most):
        rng = np.random.default_rng([seed, start])
        blocks.append(qmc.Sobol(min(most, width - start), scramble=True, rng=rng).random(n))
    uniform = np.clip(np.hstack(blocks), _CLIP, 1 - _CLIP)
    return np.asarray(norm.ppf(uniform), dtype=np.float64)
