"""History -> the next configuration: pool, shortlist, read, fit, score.

The method without Optuna's studies and trials: everything goes in as an argument, the same
arguments give the same configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from optuna_llmbo._util.torch_state import one_thread
from optuna_llmbo.embedding.encoder import Reading
from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.space.numeric_view import NumericView
from optuna_llmbo.space.prior import Prior
from optuna_llmbo.space.search_space import Configuration
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.study.history import best_first
from optuna_llmbo.study.history import History
from optuna_llmbo.study.transfer import SourceObservations
from optuna_llmbo.suggestion.candidates import candidate_pool
from optuna_llmbo.suggestion.candidates import neighbours
from optuna_llmbo.suggestion.candidates import Region
from optuna_llmbo.suggestion.candidates import unseen
from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.acquisition import AcquisitionInputs
from optuna_llmbo.surrogate.acquisition import AcquisitionName
from optuna_llmbo.surrogate.acquisition import make_scorer
from optuna_llmbo.surrogate.covariance import KernelName
from optuna_llmbo.surrogate.durations import fit_log_seconds
from optuna_llmbo.surrogate.feasibility import fit_constraints
from optuna_llmbo.surrogate.observations import gather
from optuna_llmbo.surrogate.observations import MAX_OBSERVED
from optuna_llmbo.surrogate.observations import Observations
from optuna_llmbo.surrogate.process import fit_surrogates
from optuna_llmbo.surrogate.process import Surrogates
from optuna_llmbo.surrogate.process import Views


Reader = Callable[[Sequence[Configuration]], Reading]
"""Writes configurations out as text and has the language model read them."""

_N_POOL = 2048
_N_BEST = 3
_SHARE_BY_CHANCE = 0.25
_N_CENTRES = 8
_N_AROUND = 256
_FIRST_STEP = 0.1
_STEP_SHRINKS = 1 / 3
_QUANTILE = 1.96


@dataclass(frozen=True)
class Prediction:
    """What the surrogate expects of a configuration, in the objective's units."""

    mean: float
    low: float
    """Lower end of the central 95% interval of the objective's noise-free value."""
    high: float
    """Its upper end."""

    def __neg__(self) -> Prediction:
        return Prediction(-self.mean, -self.high, -self.low)


@dataclass(frozen=True)
class Decision:
    """The configuration to try next, and why."""

    configuration: Configuration
    score: float
    """Its acquisition value, the prior's and the cost's terms included."""
    means: tuple[float, ...]
    """What the surrogate expects of it, one an objective, larger is better, in its units."""
    standard_deviations: tuple[float, ...]
    """How sure the surrogate is: half of the central 68% interval."""


@dataclass(frozen=True)
class Suggestion:
    """One decision: what is known, and how to choose."""

    region: Region
    """Where the next configuration may lie."""
    history: History
    sources: tuple[SourceObservations, ...]
    knowledge: Knowledge
    """The packs that apply to the space."""
    prior: Prior
    design: Ablation
    n_candidates: int
    """How many configurations the language model reads."""
    acquisition: AcquisitionName
    cost_aware: bool
    """Whether to weigh the improvement against the predicted seconds."""
    seed: int

    @property
    def space(self) -> SearchSpace:
        """The parameters that are chosen together."""
        return self.region.space

    def choose(self, kernel: KernelName, read: Reader | None) -> Decision:
        """The untried configuration that is most worth trying: see `consider`."""
        judge, candidates = self.consider(kernel, read)
        return judge.choice(candidates[0])

    def consider(self, kernel: KernelName, read: Reader | None) -> tuple[FittedModel, np.ndarray]:
        """The surrogates, fitted once, and what they choose from: (m, d), the best first.

        Args:
            kernel: of the surrogate.
            read: the language model; None for the numeric kernel.

        Raises:
            SurrogateFitError: if the surrogate cannot be fitted.
        """
        rng = np.random.default_rng(self.seed)
        order = best_first(self.history.targets)[:_N_BEST]
        best = self.space.to_unit([self.history.configurations[i] for i in order])
        pool = candidate_pool(self.region, self.history.seen, best, n=_N_POOL, rng=rng)
        if read is not None and kernel == "text":  # the numbers have no say
            pool = pool[rng.permutation(len(pool))[: self.n_candidates]]
        else:
            judge = self.judge("numeric", None, pool)
            scores = judge(pool)
            found = self._climb(pool, scores, judge, rng)
            if read is None:
                return judge, np.vstack([found, pool[np.argsort(-scores, kind="stable")]])
            pool = self._shortlist(pool, scores, found, rng)
        judge = self.judge(kernel, read, pool)
        return judge, pool[np.argsort(-judge(pool), kind="stable")]

    def predict(
        self, configurations: Sequence[Configuration], kernel: KernelName, read: Reader | None
    ) -> list[Prediction]:
        """What the surrogate expects of some configurations for one objective, larger is better.

        Raises:
            SurrogateFitError: if the surrogate cannot be fitted.
        """
        points = self.space.to_unit(configurations)
        ends = self.judge(kernel, read, points).quantiles(points, (0.0, -_QUANTILE, _QUANTILE))
        return [Prediction(*map(float, row)) for row in ends[:, :, 0].T]

    def judge(self, kernel: KernelName, read: Reader | None, reference: np.ndarray) -> FittedModel:
        """Surrogates, fitted once, to be asked of any points of the cube.

        Args:
            kernel: of the surrogate.
            read: the language model; None for the numeric kernel.
            reference: (m, d) untried points, which help to place the text view's axes.

        Raises:
            SurrogateFitError: if the surrogates cannot be fitted.
        """
        data = self.observations
        observed = self.views(data.points, read, data)
        targets = torch.from_numpy(data.targets)
        surrogates = fit_surrogates(
            observed, targets, kernel, self.views(reference, read), self.design
        )
        return FittedModel(self, surrogates, read)

    def _climb(
        self, pool: np.ndarray, scores: np.ndarray, judge: FittedModel, rng: np.random.Generator
    ) -> np.ndarray:
        """The best point by the numbers alone, after a local search from the pool's best ones."""
        known = {*self.history.seen, *self.space.keys(pool)}
        rounds = 0 if self.region.is_enumerable else self.design.refinements
        for i in range(rounds):
            centres = pool[np.argsort(-scores, kind="stable")[:_N_CENTRES]]
            steps = np.full((_N_AROUND, 1), _FIRST_STEP * _STEP_SHRINKS**i)
            around = neighbours(self.region, centres, steps, rng)
            new = unseen(self.space, around, known)
            if len(new):
                known.update(self.space.keys(new))
                pool = np.vstack([pool, new])
                scores = np.concatenate([scores, judge(new)])
        best: np.ndarray = pool[int(scores.argmax())]
        return best

    def _shortlist(
        self, pool: np.ndarray, scores: np.ndarray, found: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """What the language model reads: the best by the numbers alone, a quarter by chance.

        Of the local search only the point it ended at: the points on its way are so near each
        other that their texts are the same.
        """
        if len(pool) > self.n_candidates:
            by_rank = self.n_candidates - int(self.n_candidates * _SHARE_BY_CHANCE)
            chosen = np.argsort(-scores, kind="stable")[:by_rank]
            order = rng.permutation(len(pool))
            others = order[~np.isin(order, chosen)][: self.n_candidates - by_rank]
            pool = pool[np.concatenate([chosen, others])]
        is_new = self.space.keys(found[None])[0] not in self.space.keys(pool)
        return np.vstack([found, pool[: self.n_candidates - 1]]) if is_new else pool

    def situation(self, surrogates: Surrogates, read: Reader | None) -> AcquisitionInputs:
        """What the acquisition function needs to know."""
        own = self.observations.points[: len(self.observations.kept)]
        views = self.views(own, read)
        features = surrogates.features(views)
        pending = self.space.to_unit(self.history.pending)
        constraints = {
            name: values[self.observations.kept]
            for name, values in self.history.constraints.items()
        }
        feasible = np.ones(len(own), dtype=bool)
        for values in constraints.values():
            feasible &= ~(values > 0)
        p = views.numeric.shape[1]
        return AcquisitionInputs(
            model=surrogates.model,
            observed=features,
            targets=torch.from_numpy(self.observations.achieved(feasible)),
            pending=surrogates.features(self.views(pending, read))
            if len(pending)
            else features[:0],
            constraints=fit_constraints(features, p, constraints, self._failed),
        )

    def views(
        self, points: np.ndarray, read: Reader | None, data: Observations | None = None
    ) -> Views:
        """What the surrogates see of points of the cube, or of the observations."""
        numeric = torch.from_numpy(self.numeric_view(points))
        reading = read(self.space.from_unit(points)) if read is not None else None
        if data is None:
            return Views(numeric, reading)
        gap, source = torch.from_numpy(data.gaps), torch.from_numpy(data.sources)
        return Views(numeric, reading, gap, source)

    @cached_property
    def numeric_view(self) -> NumericView:
        """The numbers: hyperparameters, then derived quantities."""
        return NumericView(self.space, self.knowledge if self.design.derived else Knowledge())

    @cached_property
    def observations(self) -> Observations:
        """What the surrogates are fitted to."""
        return gather(self.space, self.history, self.sources, self.design.transform, self.seed)

    @cached_property
    def log_seconds(self) -> Callable[[Tensor], np.ndarray]:
        """How long trials take, a function of their numeric features."""
        kept = self.observations.kept
        numeric = torch.from_numpy(self.numeric_view(self.observations.points[: len(kept)]))
        return fit_log_seconds(numeric, self.history.seconds[kept])

    @cached_property
    def _failed(self) -> Tensor:
        if not self.history.infeasible:
            return torch.zeros(0, 0, dtype=torch.float64)
        latest = self.history.infeasible[-MAX_OBSERVED:]
        return torch.from_numpy(self.numeric_view(self.space.to_unit(latest)))


@dataclass(frozen=True)
class Terms:
    """Why points are worth trying: what adds up to their score. (m,) float64 each."""

    improvement: np.ndarray
    """The acquisition function: a logarithm, as the others."""
    prior: np.ndarray
    """The weighed density of where good values are expected; 0 where there is none."""
    cost: np.ndarray
    """Minus the expected logarithm of the seconds, up to a constant; 0 unless cost-aware."""

    @property
    def score(self) -> np.ndarray:
        """Their sum."""
        return np.asarray(self.improvement + self.prior + self.cost)


@dataclass(frozen=True)
class FittedModel:
    """Freshly fitted surrogates, and what they say of points of the cube."""

    suggestion: Suggestion
    surrogates: Surrogates
    read: Reader | None

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """How much m points are worth trying, (m,), larger is better."""
        return self.terms(points).score

    def terms(self, points: np.ndarray) -> Terms:
        """How much m points are worth trying, and why."""
        asked = self.suggestion
        views = asked.views(points, self.read)
        prior = cost = np.zeros(len(points))
        strength = asked.design.prior_strength / asked.history.n_observed
        if strength:
            prior = strength * asked.prior.log_density(points)
        if asked.cost_aware:
            cost = -asked.log_seconds(views.numeric)
        return Terms(self._score(self.surrogates.features(views)).numpy(), prior, cost)

    def features(self, points: np.ndarray) -> Tensor:
        """What the surrogates see of m points, (m, d) float64."""
        with torch.no_grad():
            return self.surrogates.features(self.suggestion.views(points, self.read))

    def quantiles(self, points: np.ndarray, places: Sequence[float]) -> np.ndarray:
        """Of the noise-free objectives at some standard scores, (places, m, k), in their units,
        larger is better."""
        with torch.no_grad(), one_thread():
            posterior = self.surrogates.model.posterior(self.features(points))
        mean, deviation = posterior.mean.numpy(), posterior.variance.sqrt().numpy()
        scores = mean + np.reshape(places, (-1, 1, 1)) * deviation
        scales = self.suggestion.observations.scales
        objectives = [scale.inverse(scores[..., j].ravel()) for j, scale in enumerate(scales)]
        return np.stack(objectives, axis=-1).reshape(scores.shape)

    def choice(self, point: np.ndarray) -> Decision:
        """A point of the cube as the configuration to try."""
        points = point[None]
        middle, low, high = self.quantiles(points, (0.0, -1.0, 1.0))[:, 0]
        return Decision(
            configuration=self.suggestion.space.from_unit(points)[0],
            score=float(self(points)[0]),
            means=tuple(map(float, middle)),
            standard_deviations=tuple(map(float, (high - low) / 2)),
        )

    @cached_property
    def _score(self) -> Callable[[Tensor], Tensor]:
        """The acquisition function of features."""
        situation = self.suggestion.situation(self.surrogates, self.read)
        return make_scorer(situation, self.suggestion.acquisition, seed=self.suggestion.seed)
