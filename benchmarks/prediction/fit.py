"""Fit a variant to the observed configurations of a problem.

Shapes: n observed configurations, m candidates, p numeric features, k text features.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import ExitStack
from dataclasses import dataclass
import itertools
import math
from types import ModuleType
from typing import Any

from botorch.models import SingleTaskGP
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import Kernel
from gpytorch.kernels import LinearKernel
from gpytorch.priors import LogNormalPrior
import numpy as np
import torch
from torch import Tensor

from benchmarks.prediction import texts
from benchmarks.prediction.problems import Problem
from benchmarks.prediction.variants import Variant
from benchmarks.torch_state import isolated_torch
from optuna_llmbo.surrogate import choices
from optuna_llmbo.surrogate import covariance as covariances
from optuna_llmbo.surrogate import text_view as text_views
from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.choices import ChoiceDistances
from optuna_llmbo.surrogate.choices import Inputs
from optuna_llmbo.surrogate.covariance import covariance
from optuna_llmbo.surrogate.covariance import inputs_kernel
from optuna_llmbo.surrogate.covariance import Layout
from optuna_llmbo.surrogate.covariance import scaled_matern
from optuna_llmbo.surrogate.process import fit_process
from optuna_llmbo.surrogate.process import fit_surrogate
from optuna_llmbo.surrogate.process import Views


FREE_STEPS = 100
"""Steps of unregularized training, as many as `benchmarks.race.paper` makes."""


@dataclass(frozen=True)
class Fit:
    """A fitted process, and the configurations to predict."""

    model: SingleTaskGP
    others: Tensor
    """(m, p + k + 2) features of the configurations to predict."""
    moved: bool
    """Whether training has changed the text view."""

    def predict(self) -> tuple[np.ndarray, np.ndarray]:
        """Predict mean and standard deviation, noise included, of the scores, (m,) each."""
        with torch.no_grad():
            posterior = self.model.posterior(self.others, observation_noise=True)
        return posterior.mean[:, 0].numpy(), posterior.variance[:, 0].sqrt().numpy()


def fit(
    variant: Variant,
    problem: Problem,
    observed: np.ndarray,
    others: np.ndarray,
    scores: np.ndarray,
    embedding: np.ndarray | None,
) -> Fit:
    """Fit a variant.

    Args:
        variant: the variant to fit.
        problem: the problem whose configurations are observed.
        observed: (n,) indices of the observed configurations.
        others: (m,) indices of the configurations to predict; their texts help to place the axes.
        scores: (n,) targets of the observed, standardized, larger is better.
        embedding: as returned by `texts.embed`; None for a variant without text, or one that is
            trained and so reads the texts itself.
    """
    targets = torch.from_numpy(scores)
    with ExitStack() as stack:
        stack.enter_context(isolated_torch(seed=0))
        if variant.lengthscale is not None:
            stack.enter_context(lengthscale_prior(*variant.lengthscale))
        if variant.free:
            stack.enter_context(free_training())
        if variant.is_trained:
            return _fit_trained(variant, problem, observed, others, targets)
        return _fit_as_is(variant, problem, observed, others, targets, embedding)


def _fit_as_is(
    variant: Variant,
    problem: Problem,
    observed: np.ndarray,
    others: np.ndarray,
    targets: Tensor,
    embedding: np.ndarray | None,
) -> Fit:
    numeric = problem.numeric(variant.derived)
    text = numeric[:, :0]
    if variant.reads:
        assert embedding is not None
        text = texts.features(embedding, variant.axes, variant.scaling)
    complete = np.zeros((len(numeric), 2))  # runs of this study
    Z = torch.from_numpy(np.hstack([numeric, text, complete]))
    layout = Layout(problem.inputs(variant.derived), k=text.shape[1], has_gaps=False, n_sources=0)
    model = fit_process(Z[observed], targets, lambda: kernel_of(variant, layout))
    return Fit(model, Z[others], moved=False)


def _fit_trained(
    variant: Variant, problem: Problem, observed: np.ndarray, others: np.ndarray, targets: Tensor
) -> Fit:
    numeric = torch.from_numpy(problem.numeric(variant.derived))
    known, unknown = (
        Views(numeric[some], texts.read(variant.text, problem, some))
        for some in (observed, others)
    )
    ablation = Ablation(train_token=variant.train_token, train_projection=variant.train_projection)
    inputs = problem.inputs(variant.derived)
    surrogate = fit_surrogate(known, targets, variant.kernel, inputs, unknown, ablation)
    view = surrogate.text_view
    assert view is not None and known.reading is not None
    is_neutral = torch.equal(view.token, known.reading.neutral_token())
    is_identity = torch.equal(view.projection, torch.eye(view.width, dtype=torch.float64))
    with torch.no_grad():
        features = surrogate.features(unknown)
    return Fit(surrogate.model, features, moved=not (is_neutral and is_identity))


def kernel_of(variant: Variant, layout: Layout) -> Kernel:
    """Build the covariance function of a variant."""
    if variant.kernel == "numeric" or variant.second == "matern":
        return covariance(variant.kernel, layout)
    weight = 1.0 if variant.kernel == "text" else covariances._TEXT_WEIGHT_MEDIAN
    if variant.second == "linear":
        second: Kernel = _linear(layout.text, weight)
    elif variant.second == "numbers":
        second = covariances._scaled(_of_inputs(layout.inputs), weight_median=weight)
    else:
        second = scaled_matern(layout.text, ard=variant.second == "ard", weight_median=weight)
    if variant.kernel == "text":
        return second
    return inputs_kernel(layout.inputs, main_effects=True) + second


def _of_inputs(inputs: Inputs) -> Kernel:
    """A Matern-5/2 kernel on numbers and choices with one lengthscale for all."""
    return covariances._of_inputs(inputs, ChoiceDistances(inputs.choices), ard=False)


def _linear(columns: range, weight_median: float) -> Kernel:
    return LinearKernel(
        active_dims=tuple(columns),
        variance_prior=LogNormalPrior(math.log(weight_median), 1.0),
        variance_constraint=GreaterThan(1e-4, initial_value=weight_median),
    )


@contextmanager
def lengthscale_prior(median: float, deviation: float) -> Iterator[None]:
    """Use another lengthscale prior in all Matern kernels that are made inside."""
    with (
        replaced(covariances, _LENGTHSCALE_MEDIAN=median),
        replaced(covariances, LENGTHSCALE_STANDARD_DEVIATION=deviation),
        replaced(choices, LENGTHSCALE_STANDARD_DEVIATION=deviation),
    ):
        yield


@contextmanager
def free_training() -> Iterator[None]:
    """Train text views inside without priors or early stopping, and for more steps.

    The training code sees each step as the best so far, so it makes all steps and keeps the last.
    """
    rising = itertools.count()
    with replaced(
        text_views,
        _STEPS=FREE_STEPS,
        _TOKEN_STANDARD_DEVIATION=math.inf,
        _PROJECTION_STANDARD_DEVIATION=math.inf,
        LeaveOneOutPseudoLikelihood=lambda *_: lambda *_: torch.tensor(float(next(rising))),
    ):
        yield


@contextmanager
def replaced(module: ModuleType, **values: Any) -> Iterator[None]:
    """Replace attributes of a module inside, and restore them after."""
    before = {name: getattr(module, name) for name in values}
    vars(module).update(values)
    try:
        yield
    finally:
        vars(module).update(before)
