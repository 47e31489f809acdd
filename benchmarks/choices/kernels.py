"""Kernels on numbers and choices that the package does not have.

Shapes: n and m points, p numbers, c nominal parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpytorch.kernels import Kernel
import numpy as np
import torch
from torch import Tensor

from benchmarks.choices.variants import KernelName
from optuna_llmbo.surrogate import covariance as covariances
from optuna_llmbo.surrogate.choices import ChoiceDistances
from optuna_llmbo.surrogate.choices import Inputs
from optuna_llmbo.surrogate.choices import Matern52OfSquares
from optuna_llmbo.surrogate.choices import NumbersAndChoices
from optuna_llmbo.surrogate.covariance import inputs_kernel
from optuna_llmbo.surrogate.covariance import scaled_matern
from optuna_llmbo.surrogate.priors import LEAST_LENGTHSCALE
from optuna_llmbo.surrogate.priors import LENGTHSCALE_STANDARD_DEVIATION


def kernel_of(name: KernelName, inputs: Inputs) -> Kernel:
    """Build the covariance function of a variant, in float64.

    Args:
        name: of the kernel.
        inputs: the numbers and choices; one-hot columns are numbers.
    """
    if name == "one-hot":
        kernel: Kernel = scaled_matern(inputs.columns, ard=True, weight_median=1.0)
    elif name == "product":
        kernel = covariances._scaled(_own(Product, inputs), weight_median=1.0)
    elif name == "number-effects":
        kernel = covariances._scaled(_own(NumberEffects, inputs), weight_median=1.0)
    else:
        kernel = inputs_kernel(inputs, main_effects=name == "main")
    return kernel.to(torch.float64)


def _own(kind: type[NumbersAndChoices], inputs: Inputs) -> NumbersAndChoices:
    """Make a kernel with the priors of the package's own."""
    kernel = kind(
        inputs,
        ChoiceDistances(inputs.choices),
        lengthscale_median=covariances._lengthscale_median(inputs.width),
        least_lengthscale=LEAST_LENGTHSCALE,
        ard=True,
        main_effects=kind is NumberEffects,
    )
    if isinstance(kernel, NumberEffects):
        kernel.add_numbers(inputs)
    return kernel


class Product(NumbersAndChoices):
    """A Matern-5/2 kernel on all numbers, times one for each nominal parameter."""

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **_: object) -> Tensor:
        """The correlation matrix of x1 (n, columns) and x2 (m, columns), or its diagonal, (n,)."""
        if diag:
            return x1.new_ones(len(x1))
        p, weight = self._p, self.lengthscale[0].square().reciprocal()
        numbers = _differences(x1[:, :p], x2[:, :p]).square() * weight[:p]
        different = (_differences(x1[:, p:], x2[:, p:]) != 0).to(x1) * weight[p:]
        joint = Matern52OfSquares.apply(numbers.sum(dim=2))
        product: Tensor = joint * Matern52OfSquares.apply(different).prod(dim=2)
        return product


class NumberEffects(NumbersAndChoices):
    """The package's kernel with main effects, and main effects of numbers with the same priors."""

    def add_numbers(self, inputs: Inputs) -> None:
        """Add the hyperparameters of the numbers' effects; there are none without numbers."""
        if inputs.p:
            self._learn(
                "number_variance", inputs.p, median=1 / inputs.width, deviation=1.0, least=1e-4
            )
            self._learn(
                "number_lengthscale",
                inputs.p,
                median=0.5,
                deviation=LENGTHSCALE_STANDARD_DEVIATION,
                least=LEAST_LENGTHSCALE,
            )

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **_: object) -> Tensor:
        """The covariance matrix of x1 (n, columns) and x2 (m, columns), or its diagonal, (n,)."""
        whole = super().forward(x1, x2, diag=diag)
        if not self._p:
            return whole
        variance = self.positive("number_variance")
        if diag:
            return whole + variance.sum()
        apart = _differences(x1[:, : self._p], x2[:, : self._p])
        effects = Matern52OfSquares.apply((apart / self.positive("number_lengthscale")).square())
        return whole + (variance * effects).sum(dim=2)


def _differences(left: Tensor, right: Tensor) -> Tensor:
    """Differences of all pairs of rows, (n, m, columns)."""
    return left[:, None] - right[None]


def one_hot(features: np.ndarray, sizes: Sequence[int], tried: Sequence[np.ndarray]) -> np.ndarray:
    """Replace the columns of choices: a column for each choice that was tried, one for the others.

    Different choices are at distance 1 of each other.

    Args:
        features: (n, p + c) numbers, then which choices.
        sizes: number of choices of each nominal parameter, c of them.
        tried: the choices with a column of their own, by nominal parameter.

    Returns:
        (n, columns).
    """
    p = features.shape[1] - len(sizes)
    columns = [features[:, :p]]
    for index, size, own in zip(features[:, p:].T, sizes, tried, strict=True):
        is_own = index[:, None] == own
        if len(own) < size:
            is_own = np.hstack([is_own, ~is_own.any(axis=1, keepdims=True)])
        columns.append(is_own / np.sqrt(2))
    return np.hstack(columns)
