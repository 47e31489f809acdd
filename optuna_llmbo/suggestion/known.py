"""What is known when a configuration is chosen, and the arrays that the surrogates are fitted to.

Shapes: n observed, m candidates, d parameters, p numeric features, q objectives, c constraints.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from optuna_llmbo.embedding.encoder import Reading
from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.space.numeric_view import NumericView
from optuna_llmbo.space.prior import Prior
from optuna_llmbo.space.search_space import Configuration
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.study.history import History
from optuna_llmbo.study.outcome import breaks
from optuna_llmbo.study.transfer import SourceObservations
from optuna_llmbo.suggestion.candidates import Places
from optuna_llmbo.suggestion.candidates import Region
from optuna_llmbo.suggestion.meaning import Meaning
from optuna_llmbo.suggestion.meaning import n_trained_on
from optuna_llmbo.suggestion.options import SamplerOptions
from optuna_llmbo.surrogate.acquisition import AcquisitionInputs
from optuna_llmbo.surrogate.choice_view import ChoiceViews
from optuna_llmbo.surrogate.choice_view import fit_token
from optuna_llmbo.surrogate.choice_view import scattered_like
from optuna_llmbo.surrogate.choices import Choices
from optuna_llmbo.surrogate.choices import Inputs
from optuna_llmbo.surrogate.durations import fit_log_seconds
from optuna_llmbo.surrogate.feasibility import fit_constraints
from optuna_llmbo.surrogate.observations import gather
from optuna_llmbo.surrogate.observations import MAX_OBSERVED
from optuna_llmbo.surrogate.observations import Observations
from optuna_llmbo.surrogate.posterior import Posterior
from optuna_llmbo.surrogate.process import fit_errors
from optuna_llmbo.surrogate.process import fit_surrogates
from optuna_llmbo.surrogate.process import Surrogates
from optuna_llmbo.surrogate.process import Views


_N_COMPLETIONS = 4
"""Values of the missing parameters at which a trial that ended early counts as failed."""

ReadTexts = Callable[[Sequence[Configuration]], Reading]
"""Writes configurations out as text and has the language model read them."""


@dataclass(frozen=True)
class Known:
    """Everything a suggestion depends on, besides the options and the language model."""

    region: Region
    """Where the next configuration may lie."""
    history: History
    sources: tuple[SourceObservations, ...]
    knowledge: Knowledge
    """The packs that apply to the space."""
    prior: Prior
    seed: int
    """Seed of the suggestion."""
    meaning: Meaning | None = None
    """What a language model makes of the choices; None if none reads them."""

    @property
    def space(self) -> SearchSpace:
        """The parameters that are chosen together."""
        return self.region.space


@dataclass(frozen=True)
class ModelData:
    """What is known as the arrays that the surrogates take; each is computed once, on demand."""

    known: Known
    options: SamplerOptions

    @cached_property
    def numeric_view(self) -> NumericView:
        """Numbers and choices: hyperparameters, with derived quantities."""
        derived = self.options.ablation.derived
        return NumericView(self.known.space, self.known.knowledge if derived else Knowledge())

    @cached_property
    def inputs(self) -> Inputs:
        """The columns of the numeric view, and how alike its choices are."""
        return self._inputs_at(self.choice_views)

    @cached_property
    def places(self) -> Places:
        """Coordinates of the choices of each nominal parameter; None where none is nearer."""
        placed = (one.coordinates for one in self.inputs.choices)
        return [None if one is None else one.numpy() for one in placed]

    @cached_property
    def choice_views(self) -> ChoiceViews | None:
        """The choices as a language model places them; None if none reads them.

        Its token was trained on the first trials: see `n_trained_on`.
        """
        meaning, n = self.known.meaning, n_trained_on(self.known.history.n_observed)
        if meaning is None:
            return None
        ablation = self.options.ablation
        is_trained = ablation.train_token and not ablation.random_places
        if not (n and meaning.is_trainable and is_trained):
            return meaning.neutral
        # The seed of a suggestion would keep others of too many trials, and train anew, each time.
        history, seed = self.known.history.first(n), self.options.seed
        first = replace(self, known=replace(self.known, history=history, seed=seed))
        observed = first.observations
        return meaning.at(
            observed.points.tobytes() + observed.targets.tobytes(),
            lambda: first._trained_from(meaning.neutral),
        )

    def _trained_from(self, neutral: ChoiceViews) -> ChoiceViews:
        """Train the token on all observations."""
        views = self.views(self.observations.points, None, self.observations)
        targets = torch.from_numpy(self.observations.targets)
        inputs = self._inputs_at(neutral)
        fitted = fit_surrogates(views, targets, "numeric", inputs, views, self.options.ablation)
        columns = views.numeric[:, inputs.p :].long().unbind(dim=1)
        tried = [column[column >= 0].unique().tolist() for column in columns]
        with fit_errors(len(targets)):
            return fit_token(neutral, [part.model for part in fitted.parts], tried)

    def _inputs_at(self, views: ChoiceViews | None) -> Inputs:
        sizes = [int(axis.n_values) for axis in self.known.space.axes if axis.is_nominal]
        places: Sequence[Tensor | None] = [None] * len(sizes)
        if views is not None:
            places = views.coordinates
        if self.options.ablation.random_places:
            places = [None if one is None else scattered_like(one) for one in places]
        choices = (Choices(n, placed) for n, placed in zip(sizes, places, strict=True))
        return Inputs(self.numeric_view.n_numbers, tuple(choices))

    @cached_property
    def observations(self) -> Observations:
        """What the surrogates are fitted to."""
        known, transform = self.known, self.options.ablation.transform
        return gather(known.space, known.history, known.sources, transform, known.seed)

    def views(
        self, points: np.ndarray, read: ReadTexts | None, data: Observations | None = None
    ) -> Views:
        """What the surrogates see of points (m, d), or of the observations."""
        numeric = torch.from_numpy(self.numeric_view(points))
        reading = read(self.known.space.from_unit(points)) if read is not None else None
        if data is None:
            return Views(numeric, reading)
        gap, source = torch.from_numpy(data.gaps), torch.from_numpy(data.sources)
        return Views(numeric, reading, gap, source)

    def acquisition_inputs(
        self, surrogates: Surrogates, read: ReadTexts | None
    ) -> AcquisitionInputs:
        """What the acquisition function is given besides the candidates."""
        kept = self.observations.kept
        own = self.observations.points[: len(kept)]
        views = self.views(own, read)
        features = surrogates.features(views)
        pending = self.known.space.to_unit(self.known.history.pending)
        constraints = {
            name: values[kept] for name, values in self.known.history.constraints.items()
        }
        feasible = np.ones(len(own), dtype=bool)
        for values in constraints.values():
            feasible &= ~breaks(values)
        return AcquisitionInputs(
            objectives=surrogates.posteriors,
            observed=features,
            targets=torch.from_numpy(self.observations.achieved(feasible)),
            pending=surrogates.features(self.views(pending, read))
            if len(pending)
            else features[:0],
            constraints=[
                Posterior(model)
                for model in fit_constraints(features, self.inputs, constraints, self._infeasible)
            ],
        )

    @cached_property
    def log_seconds(self) -> Callable[[Tensor], np.ndarray]:
        """How long trials take, as a function of their numeric features."""
        kept = self.observations.kept
        numeric = torch.from_numpy(self.numeric_view(self.observations.points[: len(kept)]))
        return fit_log_seconds(numeric, self.inputs, self.known.history.seconds[kept])

    @cached_property
    def _infeasible(self) -> Tensor:
        """Numeric features of the latest configurations without a score, (m, p) float64.

        A trial that ended early had not suggested all parameters yet, so the rest was not the
        cause: it counts as a failure at several values of the rest.
        """
        latest = self.known.history.infeasible[-MAX_OBSERVED:]
        if not latest:
            return torch.zeros(0, 0, dtype=torch.float64)
        n = max(1, min(_N_COMPLETIONS, MAX_OBSERVED // len(latest)))
        rng = self.options.rng(self.known.seed, "completions")
        points = self.known.region.structure.completed(self.known.space.to_unit(latest), n, rng)
        return torch.from_numpy(self.numeric_view(points))
