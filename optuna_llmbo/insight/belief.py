"""The fitted model in the objective's own units.

Shapes: m points, d parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property

import numpy as np
from optuna.trial import FrozenTrial
import torch
from torch import Tensor

from optuna_llmbo.study.outcome import complete
from optuna_llmbo.suggestion.candidates import candidate_pool
from optuna_llmbo.suggestion.candidates import Landmarks
from optuna_llmbo.suggestion.decision import Prediction
from optuna_llmbo.suggestion.fitted import fit_model
from optuna_llmbo.suggestion.fitted import FittedModel
from optuna_llmbo.suggestion.known import Known
from optuna_llmbo.surrogate.choices import distances_of


N_REFERENCE = 256


@dataclass(frozen=True)
class Belief:
    """The fitted model of one objective, in the objective's own units."""

    model: FittedModel
    sign: float
    """-1 where the study minimizes."""

    @property
    def known(self) -> Known:
        """What is known of the study."""
        return self.model.known

    def predictions(self, points: np.ndarray) -> np.ndarray:
        """Mean and both ends of the central 95% interval at points (m, d), (m, 3) float64."""
        mean, one, other = self.sign * self.model.intervals(points)[..., 0]
        return np.column_stack([mean, np.minimum(one, other), np.maximum(one, other)])

    def prediction(self, point: np.ndarray) -> Prediction:
        """The prediction at one point, (d,)."""
        return Prediction(*map(float, self.predictions(point[None])[0]))

    def covariance(self, points: np.ndarray, other: np.ndarray | None = None) -> np.ndarray:
        """The process's prior covariance between complete trials at points, (m, others) float64.

        Args:
            points: (m, d).
            other: (others, d); None: the same points.
        """
        (posterior,) = self.model.surrogates.posteriors
        left = self.model.features(points)
        right = left if other is None else self.model.features(other)
        with torch.no_grad():
            return np.asarray(posterior.prior(left, right).numpy())

    def correlation(self, points: np.ndarray, other: np.ndarray) -> np.ndarray:
        """How alike the process takes points to be, (m, others): 1 for the same."""
        own, others = (np.diag(self.covariance(at)) for at in (points, other))
        return self.covariance(points, other) / np.sqrt(np.outer(own, others))

    def varied(self, point: np.ndarray, name: str, places: np.ndarray) -> np.ndarray:
        """Put other values of one parameter into a point, (m, d).

        Where a value leads to another branch of the objective, that branch's parameters are in
        the middle of their ranges, and those of the old branch are absent. Points with the same
        parameters as the given one keep its exact coordinates.

        Args:
            point: (d,), nan where it lacks a parameter.
            name: the parameter.
            places: (m,) its values' places in [0, 1].
        """
        space = self.known.space
        points = np.tile(np.where(np.isnan(point), 0.5, point), (len(places), 1))
        points[:, space.names.index(name)] = places
        if not space.groups:
            return points
        spread = self.known.region.spread(points)
        same = (np.isnan(spread) == np.isnan(point)).all(axis=1)
        return np.where(same[:, None] & np.isnan(point), np.nan, spread)

    @cached_property
    def weights_of_meaning(self) -> dict[str, float]:
        """How much meaning weighs against equal or not, from 0 to 1, by nominal parameter.

        Those whose choices no language model reads are left out: see `ChoiceDistances`.
        """
        choices = self.model.data.inputs.choices
        if all(one.coordinates is None for one in choices):
            return {}
        distances = distances_of(self.model.surrogates.parts[0].model)
        weights = distances.weight.detach().tolist()
        return {
            name: weight
            for name, one, weight in zip(self.known.space.nominal, choices, weights, strict=True)
            if one.coordinates is not None
        }

    def recommended(self, trials: list[FrozenTrial]) -> FrozenTrial | None:
        """The complete and feasible trial with the best expectation: `LLMBOSampler.recommend`."""
        space = self.known.space
        tried = [(t, c) for t in complete(trials) if (c := space.restrict(t.params)) is not None]
        if not tried:
            return None
        means = self.sign * self.predictions(space.to_unit([c for _, c in tried]))[:, 0]
        return tried[int(means.argmax())][0]

    def over_the_space(self) -> Belief:
        """Refit with the text's axes placed among configurations from all over the space.

        The sampler places them among the few that it chooses from. Without text nothing changes.
        """
        if self.model.read is None:
            return self
        return self.fitted_to(self.known)

    def fitted_to(self, known: Known) -> Belief:
        """Fit a model of the same kind to other knowledge, over the whole space.

        Raises:
            SurrogateFitError: if it cannot be fitted.
        """
        data = replace(self.model.data, known=known)
        model = fit_model(data, self.model.kernel, self.model.read, self.sample(N_REFERENCE))
        return replace(self, model=model)

    def sample(self, n: int) -> np.ndarray:
        """Draw at most n configurations from all over the space, tried or not, (m, d)."""
        rng = np.random.default_rng(self.known.seed)
        nothing = np.zeros((0, len(self.known.space.names)))
        nowhere = Landmarks(nothing, nothing)
        places = self.model.data.places
        pool = candidate_pool(self.known.region, frozenset(), nowhere, places, n=n, rng=rng)
        return pool[np.sort(rng.permutation(len(pool))[:n])]

    @cached_property
    def views(self) -> dict[str, Sequence[int]]:
        """Columns of the model's input by view, for the views that it has."""
        numeric, width = self.model.data.numeric_view, self.model.data.inputs.width
        text = self.model.surrogates.parts[0].text_view
        p = numeric.n_numbers
        own = p - len(numeric.derived_names)
        parts: dict[str, Sequence[int]] = {}
        if self.model.kernel != "text":
            parts["hyperparameters"] = [*range(own), *range(p, width)]
            parts["derived"] = range(own, p)
        parts["text"] = range(width, width + (text.width if text is not None else 0))
        return {name: columns for name, columns in parts.items() if len(columns)}

    def mean_at(self, features: Tensor) -> np.ndarray:
        """The posterior mean on the model's own scale, (m,), larger is better."""
        mean, _ = self.model.surrogates.moments(features)
        return np.asarray(mean[:, 0].numpy())
