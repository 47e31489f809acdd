"""The fitted surrogates, and what they say of points of the space."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from optuna_llmbo.suggestion.decision import Decision
from optuna_llmbo.suggestion.decision import Terms
from optuna_llmbo.suggestion.known import Known
from optuna_llmbo.suggestion.known import ModelData
from optuna_llmbo.suggestion.known import ReadTexts
from optuna_llmbo.surrogate.acquisition import make_mixed_scorer
from optuna_llmbo.surrogate.covariance import KernelName
from optuna_llmbo.surrogate.hypothesis import trust
from optuna_llmbo.surrogate.process import fit_surrogates
from optuna_llmbo.surrogate.process import Surrogates


_Z_95 = 1.96
"""Standard score of the ends of the central 95% interval."""


@dataclass(frozen=True)
class FittedModel:
    """Surrogates fitted to what is known; ask them of any points (m, d)."""

    data: ModelData
    kernel: KernelName
    surrogates: Surrogates
    read: ReadTexts | None
    """None for the numeric kernel."""

    @property
    def known(self) -> Known:
        """What is known of the study."""
        return self.data.known

    def scores(self, points: np.ndarray) -> np.ndarray:
        """How much points are worth trying, (m,), larger is better."""
        return self.terms(points).score

    def terms(self, points: np.ndarray) -> Terms:
        """How much points are worth trying, and why."""
        options = self.data.options
        views = self.data.views(points, self.read)
        prior = cost = np.zeros(len(points))
        strength = options.ablation.prior_strength / self.known.history.n_observed
        if strength and self.trust is not None:
            prior = self.trust * strength * self.known.prior.log_density(points)
        if options.cost_aware:
            cost = -self.data.log_seconds(views.numeric)
        return Terms(self._improvement(self.surrogates.features(views)).numpy(), prior, cost)

    def features(self, points: np.ndarray) -> Tensor:
        """The surrogates' input at points, (m, columns) float64."""
        with torch.no_grad():
            return self.surrogates.features(self.data.views(points, self.read))

    def quantiles(
        self, points: np.ndarray, places: Sequence[float], *, noisy: bool = False
    ) -> np.ndarray:
        """Quantiles of the objectives at points.

        Args:
            points: (m, d).
            places: standard scores, such as 0 for the median.
            noisy: whether of a trial's values, noise included, or of the noise-free ones.

        Returns:
            (places, m, q) in the objectives' units, larger is better.
        """
        moments = self.surrogates.moments(self.features(points), noisy=noisy)
        mean, sd = (part.numpy() for part in moments)
        scores = mean + np.reshape(places, (-1, 1, 1)) * sd
        scales = self.data.observations.scales
        objectives = [scale.inverse(scores[..., j].ravel()) for j, scale in enumerate(scales)]
        return np.stack(objectives, axis=-1).reshape(scores.shape)

    def intervals(self, points: np.ndarray) -> np.ndarray:
        """Middle, low and high end of the central 95% interval, (3, m, q): see `quantiles`."""
        return self.quantiles(points, (0.0, -_Z_95, _Z_95))

    def decision(self, point: np.ndarray) -> Decision:
        """A point (d,) as the configuration to try."""
        points = point[None]
        middle, low, high = self.quantiles(points, (0.0, -1.0, 1.0), noisy=True)[:, 0]
        return Decision(
            configuration=self.known.space.from_unit(points)[0],
            score=float(self.scores(points)[0]),
            means=tuple(map(float, middle)),
            standard_deviations=tuple(map(float, (high - low) / 2)),
            trust=self.trust,
        )

    @cached_property
    def trust(self) -> float | None:
        """The probability that values are better where they were expected to be.

        None if nothing is expected; see `surrogate.hypothesis.trust`.
        """
        if not self.known.prior.is_informative:
            return None
        own = self.data.observations.points[: len(self.data.observations.kept)]
        expected = torch.from_numpy(self.known.prior.standardized(own))
        return trust([part.model for part in self.surrogates.parts], expected)

    @cached_property
    def _improvement(self) -> Callable[[Tensor], Tensor]:
        """The acquisition function, of features."""
        inputs = self.data.acquisition_inputs(self.surrogates, self.read)
        members = self.surrogates.members or (self.surrogates,)
        return make_mixed_scorer(
            [replace(inputs, objectives=member.posteriors) for member in members],
            self.data.options.acquisition,
            seed=self.known.seed,
        )


def fit_model(
    data: ModelData, kernel: KernelName, read: ReadTexts | None, reference: np.ndarray
) -> FittedModel:
    """Fit the surrogates, one for each objective.

    Args:
        data: what they are fitted to.
        kernel: their covariance function.
        read: the language model; None for the numeric kernel.
        reference: (m, d) untried points, which help to place the text view's axes.

    Raises:
        SurrogateFitError: if a surrogate cannot be fitted.
    """
    observations = data.observations
    observed = data.views(observations.points, read, observations)
    targets = torch.from_numpy(observations.targets)
    surrogates = fit_surrogates(
        observed, targets, kernel, data.inputs, data.views(reference, read), data.options.ablation
    )
    return FittedModel(data, kernel, surrogates, read)
