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

from optuna_llmbo.acquisition import AcquisitionName
from optuna_llmbo.acquisition import make_scorer
from optuna_llmbo.acquisition import Situation
from optuna_llmbo.candidates import candidate_pool
from optuna_llmbo.candidates import neighbours
from optuna_llmbo.candidates import Region
from optuna_llmbo.candidates import unseen
from optuna_llmbo.cost import fit_log_seconds
from optuna_llmbo.covariance import KernelName
from optuna_llmbo.design import Design
from optuna_llmbo.encoder import Reading
from optuna_llmbo.feasibility import fit_constraints
from optuna_llmbo.features import NumericView
from optuna_llmbo.history import best_first
from optuna_llmbo.history import History
from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.observations import gather
from optuna_llmbo.observations import MAX_OBSERVED
from optuna_llmbo.observations import Observations
from optuna_llmbo.prior import Prior
from optuna_llmbo.space import Configuration
from optuna_llmbo.space import SearchSpace
from optuna_llmbo.surrogate import fit_surrogates
from optuna_llmbo.surrogate import Surrogates
from optuna_llmbo.surrogate import Views
from optuna_llmbo.torch_state import one_thread
from optuna_llmbo.transfer import Source


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
class Choice:
    """The configuration to try next, and why."""

    configuration: Configuration
    score: float
    """Its acquisition value, the prior's and the cost's terms included."""
    means: tuple[float, ...]
    """What the surrogate expects of it, one an objective, larger is better, in its units."""
    deviations: tuple[float, ...]
    """How sure the surrogate is: half of the central 68% interval."""


@dataclass(frozen=True)
class Suggestion:
    """One decision: what is known, and how to choose."""

    region: Region
    """Where the next configuration may lie."""
    history: History
    sources: tuple[Source, ...]
    knowledge: Knowledge
    """The packs that apply to the space."""
    prior: Prior
    design: Design
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

    def choose(self, kernel: KernelName, read: Reader | None) -> Choice:
        """The untried configuration that is most worth trying.

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
            judge = self._judge("numeric", None, pool)
            scores = judge(pool)
            found = self._climb(pool, scores, judge, rng)
            if read is None:
                return judge.choice(found)
            pool = self._shortlist(pool, scores, found, rng)
        judge = self._judge(kernel, read, pool)
        return judge.choice(pool[int(judge(pool).argmax())])

    def predict(
        self, configurations: Sequence[Configuration], kernel: KernelName, read: Reader | None
    ) -> list[Prediction]:
        """What the surrogate expects of some configurations for one objective, larger is better.

        Raises:
            SurrogateFitError: if the surrogate cannot be fitted.
        """
        cube = self.space.to_unit(configurations)
        surrogates = self._fit(kernel, read, cube)
        ends = self.quantiles(surrogates, self.views(cube, read), (0.0, -_QUANTILE, _QUANTILE))
        return [Prediction(*map(float, row)) for row in ends[:, :, 0].T]

    def quantiles(
        self, surrogates: Surrogates, views: Views, places: Sequence[float]
    ) -> np.ndarray:
        """Of the noise-free objectives at some standard scores, (places, m, k), in their units."""
        with torch.no_grad(), one_thread():
            posterior = surrogates.model.posterior(surrogates.features(views))
        mean, deviation = posterior.mean.numpy(), posterior.variance.sqrt().numpy()
        scales = self._observations.scales
        scores = [(mean + place * deviation).T for place in places]
        return np.stack(
            [
                np.column_stack(
                    [scale.inverse(column) for scale, column in zip(scales, rows, strict=True)]
                )
                for rows in scores
            ]
        )

    def _climb(
        self, pool: np.ndarray, scores: np.ndarray, judge: Judge, rng: np.random.Generator
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

    def _judge(self, kernel: KernelName, read: Reader | None, reference: np.ndarray) -> Judge:
        """How much points of the cube are worth trying, by freshly fitted surrogates."""
        surrogates = self._fit(kernel, read, reference)
        score = make_scorer(self._situation(surrogates, read), self.acquisition, seed=self.seed)
        return Judge(self, surrogates, score, read)

    def _fit(self, kernel: KernelName, read: Reader | None, reference: np.ndarray) -> Surrogates:
        data = self._observations
        observed = self.views(data.cube, read, data)
        targets = torch.from_numpy(data.targets)
        return fit_surrogates(observed, targets, kernel, self.views(reference, read), self.design)

    def _situation(self, surrogates: Surrogates, read: Reader | None) -> Situation:
        own = self._observations.cube[: len(self._observations.kept)]
        views = self.views(own, read)
        features = surrogates.features(views)
        pending = self.space.to_unit(self.history.pending)
        constraints = {
            name: values[self._observations.kept]
            for name, values in self.history.constraints.items()
        }
        feasible = np.ones(len(own), dtype=bool)
        for values in constraints.values():
            feasible &= ~(values > 0)
        p = views.numeric.shape[1]
        return Situation(
            model=surrogates.model,
            observed=features,
            targets=torch.from_numpy(self._observations.achieved(feasible)),
            pending=surrogates.features(self.views(pending, read))
            if len(pending)
            else features[:0],
            constraints=fit_constraints(features, p, constraints, self._failed),
        )

    def views(
        self, cube: np.ndarray, read: Reader | None, data: Observations | None = None
    ) -> Views:
        """What the surrogates see of points of the cube, or of the observations."""
        numeric = torch.from_numpy(self._numeric_view(cube))
        reading = read(self.space.from_unit(cube)) if read is not None else None
        if data is None:
            return Views(numeric, reading)
        gap, source = torch.from_numpy(data.gaps), torch.from_numpy(data.sources)
        return Views(numeric, reading, gap, source)

    @cached_property
    def _numeric_view(self) -> NumericView:
        return NumericView(self.space, self.knowledge if self.design.derived else Knowledge())

    @cached_property
    def _observations(self) -> Observations:
        return gather(self.space, self.history, self.sources, self.design.transform, self.seed)

    @cached_property
    def log_seconds(self) -> Callable[[Tensor], np.ndarray]:
        """How long trials take, a function of their numeric features."""
        kept = self._observations.kept
        numeric = torch.from_numpy(self._numeric_view(self._observations.cube[: len(kept)]))
        return fit_log_seconds(numeric, self.history.seconds[kept])

    @cached_property
    def _failed(self) -> Tensor:
        if not self.history.infeasible:
            return torch.zeros(0, 0, dtype=torch.float64)
        latest = self.history.infeasible[-MAX_OBSERVED:]
        return torch.from_numpy(self._numeric_view(self.space.to_unit(latest)))


@dataclass(frozen=True)
class Judge:
    """Freshly fitted surrogates, and what they say of points of the cube."""

    suggestion: Suggestion
    surrogates: Surrogates
    score: Callable[[Tensor], Tensor]
    """The acquisition function of features."""
    read: Reader | None

    def __call__(self, cube: np.ndarray) -> np.ndarray:
        """How much m points are worth trying, (m,), larger is better."""
        asked = self.suggestion
        views = asked.views(cube, self.read)
        scores = self.score(self.surrogates.features(views)).numpy()
        strength = asked.design.prior_strength / asked.history.n_observed
        if strength:
            scores = scores + strength * asked.prior.log_density(cube)
        if asked.cost_aware:
            scores = scores - asked.log_seconds(views.numeric)
        return scores

    def choice(self, point: np.ndarray) -> Choice:
        """A point of the cube as the configuration to try."""
        cube = point[None]
        views = self.suggestion.views(cube, self.read)
        middle, low, high = self.suggestion.quantiles(self.surrogates, views, (0.0, -1.0, 1.0))[
            :, 0
        ]
        return Choice(
            configuration=self.suggestion.space.from_unit(cube)[0],
            score=float(self(cube)[0]),
            means=tuple(map(float, middle)),
            deviations=tuple(map(float, (high - low) / 2)),
        )
