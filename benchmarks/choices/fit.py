"""Fit a variant to the observed rows of a problem, and predict others.

Shapes: n observed rows, m others, p numbers, c nominal parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from botorch.models import SingleTaskGP
import numpy as np
import torch
from torch import Tensor

from benchmarks.choices import reading
from benchmarks.choices.kernels import kernel_of
from benchmarks.choices.kernels import one_hot
from benchmarks.choices.problems import Problem
from benchmarks.choices.variants import Variant
from benchmarks.torch_state import isolated_torch
from optuna_llmbo.surrogate.choice_view import ChoiceViews
from optuna_llmbo.surrogate.choice_view import fit_token
from optuna_llmbo.surrogate.choices import Choices
from optuna_llmbo.surrogate.choices import Inputs
from optuna_llmbo.surrogate.process import fit_process


@dataclass(frozen=True)
class Prediction:
    """Normal distributions of the scores of rows, noise included."""

    mean: np.ndarray
    """(m,)."""
    deviation: np.ndarray
    """(m,)."""
    moved: bool
    """Whether training has changed the token."""


@dataclass(frozen=True)
class _Data:
    """What a process is fitted to, and what it predicts."""

    problem: Problem
    observed: np.ndarray
    """(n, p + c)."""
    others: np.ndarray
    """(m, p + c)."""
    targets: Tensor
    """(n,)."""

    @property
    def tried(self) -> list[np.ndarray]:
        """The choices that are observed, by nominal parameter."""
        return [np.unique(column) for column in self.observed[:, self.problem.n_numbers :].T]


def predict(
    variant: Variant,
    problem: Problem,
    observed: np.ndarray,
    others: np.ndarray,
    scores: np.ndarray,
    seed: int,
) -> Prediction:
    """Fit a variant to rows, and predict others.

    Args:
        variant: the variant to fit.
        problem: the problem that the rows are of.
        observed: (n,) indices of the observed rows.
        others: (m,) indices of the rows to predict.
        scores: (n,) targets of the observed, standardized, larger is better.
        seed: of random places.

    Raises:
        InputError: if a language model is not installed.
    """
    data = _Data(
        problem, problem.features(observed), problem.features(others), torch.from_numpy(scores)
    )
    with isolated_torch(seed=0):
        if variant.kernel == "one-hot":
            return _predict_one_hot(data)
        if variant.read is None:
            places = reading.random_coordinates(problem, seed) if variant.random else None
            return _moments(_fit(variant, data, places), data.others, moved=False)
        views = reading.views(variant.read, problem.task.name)
        coordinates = None if views is None else views.coordinates
        model = _fit(variant, data, coordinates)
        moved = False
        if variant.train_token and views is not None:
            trained = _trained(views, model, data)
            moved = trained is not views
            # Training has left the model with other places.
            model = _fit(variant, data, trained.coordinates)
        return _moments(model, data.others, moved)


def _fit(
    variant: Variant, data: _Data, coordinates: Sequence[Tensor | None] | None
) -> SingleTaskGP:
    sizes = data.problem.sizes
    placed = coordinates or [None] * len(sizes)
    choices = tuple(Choices(n, one) for n, one in zip(sizes, placed, strict=True))
    inputs = Inputs(data.problem.n_numbers, choices)
    return fit_process(
        torch.from_numpy(data.observed),
        data.targets,
        lambda: kernel_of(variant.kernel, inputs),
    )


def _trained(views: ChoiceViews, model: SingleTaskGP, data: _Data) -> ChoiceViews:
    tried = [choices.astype(int).tolist() for choices in data.tried]
    return fit_token(views, [model], tried)


def _predict_one_hot(data: _Data) -> Prediction:
    sizes, tried = data.problem.sizes, data.tried
    observed, others = (one_hot(rows, sizes, tried) for rows in (data.observed, data.others))
    inputs = Inputs(observed.shape[1])
    model = fit_process(
        torch.from_numpy(observed), data.targets, lambda: kernel_of("one-hot", inputs)
    )
    return _moments(model, others, moved=False)


def _moments(model: SingleTaskGP, others: np.ndarray, moved: bool) -> Prediction:
    with torch.no_grad():
        posterior = model.posterior(torch.from_numpy(others), observation_noise=True)
    mean, variance = posterior.mean[:, 0].numpy(), posterior.variance[:, 0].numpy()
    return Prediction(mean, np.sqrt(variance), moved)
