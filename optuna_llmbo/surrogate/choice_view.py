"""Where a language model's embeddings place the choices of a nominal parameter; its token learns.

Shapes: n observed, C choices of one parameter, t of them tried, k coordinates, d_model width of
the model.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
import math

from botorch.models import SingleTaskGP
import torch
from torch import Tensor

from optuna_llmbo.embedding.encoder import Reading
from optuna_llmbo.surrogate.choices import ChoiceDistances
from optuna_llmbo.surrogate.choices import distances_of
from optuna_llmbo.surrogate.likelihood import left_out_density
from optuna_llmbo.surrogate.likelihood import log_posterior


_WHITENING = 0.25
"""Principal axes are divided by their standard deviation to this power: 0 leaves them as they are,
1 whitens them."""
_SMALLEST_AXIS = 1e-6
_FEWEST_OBSERVED = 4
_STEPS = 5
_PATIENCE = 2
_RISE = 1e-3
"""Least rise of the leave-one-out density, in nats for each observation, that counts."""
_TOKEN_STANDARD_DEVIATION = 0.5
"""Prior standard deviation of the token from its neutral value, in units of its own size."""


@dataclass(frozen=True)
class ChoiceView:
    """Maps embeddings e of C choices to coordinates (e - mean) basis, at most C - 1 of them."""

    reading: Reading
    """The choices as read, in the order of their indices."""
    mean: Tensor
    """(width,) float64."""
    basis: Tensor
    """(width, k) float64: principal axes, partly whitened, scaled so that at the neutral token the
    mean squared distance of two choices is 1."""

    @classmethod
    def neutral(cls, reading: Reading) -> ChoiceView | None:
        """Make the view at the token's neutral value; None if all choices read the same."""
        with torch.no_grad():
            embedding = reading.embed(reading.neutral_token()).to(torch.float64)
        mean = embedding.mean(dim=0)
        _, scale, axes = torch.linalg.svd(embedding - mean, full_matrices=False)
        if not bool(scale[0] > _SMALLEST_AXIS * embedding.norm()):
            return None
        kept = scale > _SMALLEST_AXIS * scale[0]
        basis = axes[kept].T * scale[kept] ** -_WHITENING
        size = mean_squared_distance((embedding - mean) @ basis).sqrt()
        return cls(reading, mean, basis / size)

    def __len__(self) -> int:
        return len(self.reading)

    def coordinates(self, token: Tensor, of: Sequence[int] | None = None) -> Tensor:
        """Place choices for one value of the token; differentiable in it.

        Args:
            token: (d_model,) float32.
            of: indices of the choices; None: all.

        Returns:
            (t, k) float64.
        """
        reading = self.reading if of is None else self.reading.part(of)
        return (reading.embed(token).to(torch.float64) - self.mean) @ self.basis

    @cached_property
    def places(self) -> Tensor:
        """The coordinates of all choices at the neutral token, (C, k) float64."""
        with torch.no_grad():
            return self.coordinates(self.reading.neutral_token())


def mean_squared_distance(coordinates: Tensor) -> Tensor:
    """Compute the mean squared distance of two different rows, by way of their variance."""
    n = len(coordinates)
    return 2 * (coordinates - coordinates.mean(dim=0)).square().sum() / max(1, n - 1)


def _standardized(coordinates: Tensor) -> Tensor:
    """Centre the rows, and scale them to a mean squared distance of 1."""
    centred = coordinates - coordinates.mean(dim=0)
    return centred / mean_squared_distance(centred).sqrt()


def scattered_like(coordinates: Tensor) -> Tensor:
    """Draw as many places of as many coordinates at random, centred and scaled as they are; the
    same whenever the shape is."""
    generator = torch.Generator().manual_seed(0)
    return _standardized(torch.randn(coordinates.shape, generator=generator, dtype=torch.float64))


@dataclass(frozen=True)
class ChoiceViews:
    """The views of a space's nominal parameters at one value of the token, which they share."""

    views: tuple[ChoiceView | None, ...]
    """One for each nominal parameter; None where only equal and different are told apart."""
    token: Tensor
    """(d_model,) float32."""

    @classmethod
    def neutral(cls, views: Sequence[ChoiceView | None]) -> ChoiceViews:
        """Take the token's neutral value; at least one view is there."""
        readings = (view.reading for view in views if view is not None)
        return cls(tuple(views), next(readings).neutral_token())

    @cached_property
    def is_neutral(self) -> bool:
        """Whether the token has its neutral value."""
        return torch.equal(self.token, self.neutral(self.views).token)

    @cached_property
    def coordinates(self) -> tuple[Tensor | None, ...]:
        """Where the choices are, (C, k) float64 each: see `Choices.coordinates`."""
        return tuple(None if view is None else self._of(view) for view in self.views)

    def _of(self, view: ChoiceView) -> Tensor:
        if self.is_neutral:
            return view.places
        with torch.no_grad():
            return _standardized(view.coordinates(self.token))


def fit_token(
    views: ChoiceViews, models: Sequence[SingleTaskGP], tried: Sequence[Sequence[int]]
) -> ChoiceViews:
    """Move the learnable token to where the processes explain the targets better.

    L-BFGS maximizes the marginal likelihood with a normal prior around the token's neutral value.
    Left free it overfits; so training stops when steps do not raise the leave-one-out predictive
    density (Rasmussen & Williams 2006, eq. 5.11). Choices change their places, not the mean
    distance of those that were tried: lengthscales are there for that.

    Args:
        views: at the token's neutral value.
        models: processes fitted at that value, one for each objective; their hyperparameters
            stay as they are. They are left with other places.
        tried: indices of the choices of each nominal parameter that the models were fitted to.

    Returns:
        The views with the best leave-one-out density; those passed in if no step raised it.
    """
    if len(models[0].train_targets) < _FEWEST_OBSERVED:
        return views
    neutral = views.token
    scale = neutral.square().mean().sqrt() * _TOKEN_STANDARD_DEVIATION
    moved = torch.zeros_like(neutral, requires_grad=True)  # in prior standard deviations
    optimizer = torch.optim.LBFGS([moved], max_iter=1, line_search_fn="strong_wolfe", max_eval=4)
    placed = [_Placed.of(model, views, tried) for model in models]

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = moved.square().sum() / 2
        for one in placed:
            total = total - one.at(neutral + scale * moved).log_density()
        total.backward()
        return total

    best, waited = neutral, 0
    best_density = sum(one.at(neutral).left_out() for one in placed)
    for _ in range(_STEPS):
        optimizer.step(loss)
        token = (neutral + scale * moved).detach().clone()
        density = sum(one.at(token).left_out() for one in placed)
        waited = 0 if density > best_density + _RISE else waited + 1
        if density > best_density:
            best, best_density = token, density
        if waited >= _PATIENCE or not math.isfinite(density):
            break
    return views if torch.equal(best, neutral) else ChoiceViews(views.views, best)


@dataclass(frozen=True)
class _Placed:
    """A process whose choices move with the token."""

    model: SingleTaskGP
    distances: ChoiceDistances
    views: ChoiceViews
    tried: Sequence[Sequence[int]]

    @classmethod
    def of(
        cls, model: SingleTaskGP, views: ChoiceViews, tried: Sequence[Sequence[int]]
    ) -> _Placed:
        model.train().requires_grad_(False)
        return cls(model, distances_of(model), views, tried)

    def at(self, token: Tensor) -> _Placed:
        """Move the choices that were tried; the others are not looked at."""
        coordinates: list[Tensor | None] = []
        for view, tried in zip(self.views.views, self.tried, strict=True):
            if view is None or not len(tried):
                coordinates.append(None if view is None else view.places)
                continue
            before, moved = view.places[list(tried)], view.coordinates(token, tried)
            if len(tried) > 1:
                ratio = mean_squared_distance(before) / mean_squared_distance(moved)
                moved = (moved - moved.mean(dim=0)) * ratio.sqrt() + before.mean(dim=0)
            rows = torch.tensor(tried)
            coordinates.append(view.places.index_copy(0, rows, moved))
        self.distances.place(coordinates)
        return self

    @cached_property
    def log_density(self) -> Callable[[], Tensor]:
        """Computes the log density of the targets, up to a constant."""
        return log_posterior(self.model)

    def left_out(self) -> float:
        """The mean log density of each target given the others."""
        with torch.no_grad():
            return left_out_density(self.model)
