"""The surrogate: a Gaussian process on the numbers and on the LLM's embedding, fitted jointly.

Glossary, here and in `text_view` and `acquisition`: n observed configurations, m others, p
numeric features, k text features, `Z (n, p + k)` float64, `y (n,)` float64, always maximized and
standardized.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import math
from typing import Literal
import warnings

from botorch.exceptions import BotorchError
from botorch.exceptions import OptimizationWarning
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.utils.gpytorch_modules import get_gaussian_likelihood_with_lognormal_prior
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import Kernel
from gpytorch.kernels import MaternKernel
from gpytorch.kernels import ScaleKernel
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import LogNormalPrior
from linear_operator.utils.errors import NanError
from linear_operator.utils.errors import NotPSDError
import numpy as np
import torch
from torch import Tensor

from optuna_llmbo.encoder import Reading
from optuna_llmbo.errors import SurrogateFitError
from optuna_llmbo.text_view import fit_text_view
from optuna_llmbo.text_view import TextView
from optuna_llmbo.torch_state import one_thread


KernelName = Literal["sum", "text", "numeric"]
KERNELS: tuple[KernelName, ...] = ("sum", "text", "numeric")

_FIT_TOLERANCE = 1e-5
"""Relative improvement of the likelihood at which the fit ends."""

_TEXT_WEIGHT_MEDIAN = 0.3
"""Prior median of the text kernel's variance, the numeric kernel's being 1: with few trials the
numbers are the better guide, and text must earn its weight."""


@dataclass(frozen=True)
class Views:
    """What the surrogate sees of some configurations."""

    numeric: Tensor
    """(n, p) float64."""
    reading: Reading | None = None
    """The assignments as read by the LLM; None without text."""


@dataclass(frozen=True)
class Surrogate:
    """A fitted model of the target over numeric and text features."""

    model: SingleTaskGP
    """A BoTorch model over `Z`."""
    text_view: TextView | None

    @property
    def observed(self) -> Tensor:
        """What the model was fitted to: the observed configurations' features, (n, p + k)."""
        features: Tensor = self.model.train_inputs[0]
        return features

    def features(self, views: Views) -> Tensor:
        """The model's input for some configurations, (m, p + k) float64."""
        return _features(views, self.text_view)

    @property
    def noise(self) -> float:
        """Inferred variance of the noise, in units of the standardized target's variance."""
        return float(self.model.likelihood.noise.detach().mean())


def robust_standardize(targets: np.ndarray) -> np.ndarray:
    """Winsorize bad outliers, then shift and scale to mean 0 and deviation 1.

    Targets below Tukey's fence, the first quartile minus 1.5 interquartile ranges, are moved up
    to it, so that collapsed runs do not set the scale; good outliers are what is looked for and
    stay. Infinite values take the fence, or the best finite value.

    Args:
        targets: (n,) larger is better, not nan.

    Returns:
        (n,) float64, all zero if the targets are constant.
    """
    finite = targets[np.isfinite(targets)]
    if not len(finite):
        return np.zeros(len(targets))
    low, middle = np.quantile(finite, [0.25, 0.75])
    fence = low - 1.5 * (middle - low) if middle > low else finite.min()
    clipped = np.clip(targets, max(fence, finite.min()), finite.max())
    deviation = clipped.std()
    return (clipped - clipped.mean()) / deviation if deviation > 0 else np.zeros(len(targets))


def fit_surrogate(
    observed: Views, targets: Tensor, kernel: KernelName, reference: Views
) -> Surrogate:
    """Fit the learnable token, the projection and the Gaussian process to the observed trials.

    All maximize the marginal likelihood with priors (Rasmussen & Williams 2006, eq. 2.30), in
    turns: the process by L-BFGS, token and projection by AdamW, the process again.

    Args:
        observed: views of the n observed configurations.
        targets: (n,) float64, standardized, larger is better.
        kernel: "sum" of numeric and text kernel, or one of them.
        reference: views of configurations yet untried: they help to place the text view's axes.

    Raises:
        SurrogateFitError: if the model cannot be fitted: a matrix that is not positive definite,
            no finite likelihood, memory run out.
    """
    with fit_errors(len(targets)):
        if kernel == "numeric":
            return Surrogate(_fit(observed.numeric, targets, kernel, None), None)
        assert observed.reading is not None and reference.reading is not None
        neutral = TextView.neutral(observed.reading, reference.reading)
        model = _fit(_features(observed, neutral), targets, kernel, neutral)
        view = fit_text_view(neutral, observed.reading, model, observed.numeric)
        if view is not neutral:
            model.set_train_data(_features(observed, view), strict=False)
            maximize_likelihood(model)
        return Surrogate(model, view)


def _features(views: Views, text_view: TextView | None) -> Tensor:
    if text_view is None or views.reading is None:
        return views.numeric
    with torch.no_grad():
        return torch.cat([views.numeric, text_view(views.reading)], dim=1)


def _fit(
    features: Tensor, targets: Tensor, kernel: KernelName, text_view: TextView | None
) -> SingleTaskGP:
    k = text_view.width if text_view is not None else 0
    return fit_process(features, targets, _kernel(kernel, features.shape[1] - k, k))


def fit_process(features: Tensor, targets: Tensor, covariance: Kernel) -> SingleTaskGP:
    """Fit a Gaussian process with inferred noise by L-BFGS from one start, retried on failure.

    Args:
        features: (n, d) float64.
        targets: (n,) float64.
        covariance: its kernel; its hyperparameters are fitted in place.
    """
    model = SingleTaskGP(
        features,
        targets[:, None],
        likelihood=get_gaussian_likelihood_with_lognormal_prior(),
        covar_module=covariance.to(torch.float64),
        outcome_transform=None,
    )
    maximize_likelihood(model)
    return model


def maximize_likelihood(model: SingleTaskGP) -> None:
    """Fit a process's hyperparameters in place, from where they are; leaves it in eval mode."""
    mll = ExactMarginalLogLikelihood(model.likelihood, model)
    mll.requires_grad_(True).train()
    with warnings.catch_warnings(), one_thread():
        warnings.simplefilter("ignore", OptimizationWarning)
        fit_gpytorch_mll(mll, optimizer_kwargs={"options": {"ftol": _FIT_TOLERANCE}})
    mll.eval()


def _kernel(kernel: KernelName, p: int, k: int) -> Kernel:
    numeric = scaled_matern(range(p), ard=True, weight_median=1.0)
    if kernel == "numeric":
        return numeric
    text_alone = kernel == "text"
    weight = 1.0 if text_alone else _TEXT_WEIGHT_MEDIAN
    text = scaled_matern(range(p, p + k), ard=False, weight_median=weight)
    return text if text_alone else numeric + text


def scaled_matern(
    columns: range, *, ard: bool, weight_median: float, least_lengthscale: float = 2.5e-2
) -> Kernel:
    """Matern-5/2 on some columns, with priors on the lengthscale and on the variance.

    The lengthscale's log-normal prior grows with the square root of the dimension (Hvarfner,
    Hellsten & Nardi 2024, arXiv:2402.02229).
    """
    width = len(columns)
    prior = LogNormalPrior(math.sqrt(2) + 0.5 * math.log(width), math.sqrt(3))
    start = max(float(prior.mode), 1.1 * least_lengthscale)
    matern = MaternKernel(
        nu=2.5,
        ard_num_dims=width if ard else None,
        active_dims=tuple(columns),
        lengthscale_prior=prior,
        lengthscale_constraint=GreaterThan(least_lengthscale, initial_value=start),
    )
    weight_prior = LogNormalPrior(math.log(weight_median), 1.0)
    # Without a floor the weight underflows to 0, outside the prior's support.
    floor = GreaterThan(1e-4, initial_value=weight_median)
    return ScaleKernel(matern, outputscale_prior=weight_prior, outputscale_constraint=floor)


@contextmanager
def fit_errors(n: int) -> Iterator[None]:
    """Turn what numerics and memory can do to a fit into one error."""
    try:
        yield
    except (
        NotPSDError,
        NanError,
        BotorchError,  # features that are not finite, no fit from any start
        torch.linalg.LinAlgError,  # type: ignore[attr-defined]
        torch.OutOfMemoryError,
        MemoryError,
        ValueError,  # a prior's or a distribution's, for a value that is not finite
    ) as error:
        raise SurrogateFitError(
            f"the surrogate could not be fitted to {n} trials: {type(error).__name__}: {error}"
        ) from error
