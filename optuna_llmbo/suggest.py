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
from optuna_llmbo.candidates import is_enumerable
from optuna_llmbo.candidates import neighbours
from optuna_llmbo.candidates import unseen
from optuna_llmbo.cost import fit_log_seconds
from optuna_llmbo.covariance import KernelName
from optuna_llmbo.design import Design
from optuna_llmbo.encoder import Reading
from optuna_llmbo.feasibility import fit_constraints
from optuna_llmbo.features import NumericView
from optuna_llmbo.history import History
from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.observations import gather
from optuna_llmbo.observations import MAX_OBSERVED
from optuna_llmbo.observations import Observations
from optuna_llmbo.prior import Prior
from optuna_llmbo.space import Configuration
from optuna_llmbo.space import SearchSpace
from optuna_llmbo.surrogate import fit_surrogate
from optuna_llmbo.surrogate import Surrogate
from optuna_llmbo.surrogate import Views
from optuna_llmbo.transfer import Source


Reader = Callable[[Sequence[Configuration]], Reading]
"""Writes configurations out as text and has the language model read them."""

Score = Callable[[np.ndarray], np.ndarray]
"""(m, n names) points of the cube -> (m,), larger is better."""

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
class Suggestion:
    """One decision: what is known, and how to choose."""

    space: SearchSpace
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

    def choose(self, kernel: KernelName, read: Reader | None) -> Configuration:
        """The untried configuration that is most worth trying.

        Args:
            kernel: of the surrogate.
            read: the language model; None for the numeric kernel.

        Raises:
            SurrogateFitError: if the surrogate cannot be fitted.
        """
        rng = np.random.default_rng(self.seed)
        order = np.argsort(-self.history.targets, kind="stable")[:_N_BEST]
        best = self.space.to_unit([self.history.configurations[i] for i in order])
        pool = candidate_pool(self.space, self.history.seen, best, n=_N_POOL, rng=rng)
        if read is not None and kernel == "text":  # the numbers have no say
            pool = pool[rng.permutation(len(pool))[: self.n_candidates]]
        else:
            score = self._judge("numeric", None, pool)
            scores = score(pool)
            found = self._climb(pool, scores, score, rng)
            if read is None:
                return self._configuration(found)
            pool = self._shortlist(pool, scores, found, rng)
        scores = self._judge(kernel, read, pool)(pool)
        return self._configuration(pool[int(scores.argmax())])

    def predict(
        self, configurations: Sequence[Configuration], kernel: KernelName, read: Reader | None
    ) -> list[Prediction]:
        """What the surrogate expects of some configurations, larger is better.

        Raises:
            SurrogateFitError: if the surrogate cannot be fitted.
        """
        cube = self.space.to_unit(configurations)
        surrogate = self._fit(kernel, read, cube)
        with torch.no_grad():
            posterior = surrogate.model.posterior(surrogate.features(self._views(cube, read)))
        mean, deviation = posterior.mean[:, 0].numpy(), posterior.variance[:, 0].sqrt().numpy()
        columns = [
            self._observations.scale.inverse(mean + z * deviation)
            for z in (0.0, -_QUANTILE, _QUANTILE)
        ]
        return [Prediction(*map(float, row)) for row in zip(*columns, strict=True)]

    def _climb(
        self, pool: np.ndarray, scores: np.ndarray, score: Score, rng: np.random.Generator
    ) -> np.ndarray:
        """The best point by the numbers alone, after a local search from the pool's best ones."""
        known = {*self.history.seen, *self.space.keys(pool)}
        rounds = 0 if is_enumerable(self.space) else self.design.refinements
        for i in range(rounds):
            centres = pool[np.argsort(-scores, kind="stable")[:_N_CENTRES]]
            steps = np.full((_N_AROUND, 1), _FIRST_STEP * _STEP_SHRINKS**i)
            around = neighbours(self.space, centres, steps, rng)
            new = unseen(self.space, around, known)
            if len(new):
                known.update(self.space.keys(new))
                pool = np.vstack([pool, new])
                scores = np.concatenate([scores, score(new)])
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
        is_new = not (pool == found).all(axis=1).any()
        return np.vstack([found, pool[: self.n_candidates - 1]]) if is_new else pool

    def _configuration(self, point: np.ndarray) -> Configuration:
        return self.space.from_unit(point[None])[0]

    def _judge(self, kernel: KernelName, read: Reader | None, reference: np.ndarray) -> Score:
        """How much points of the cube are worth trying, by a freshly fitted surrogate."""
        surrogate = self._fit(kernel, read, reference)
        score = make_scorer(self._situation(surrogate, read), self.acquisition, seed=self.seed)
        strength = self.design.prior_strength / self.history.n_observed

        def judge(cube: np.ndarray) -> np.ndarray:
            views = self._views(cube, read)
            scores = score(surrogate.features(views)).numpy()
            if strength:
                scores = scores + strength * self.prior.log_density(cube)
            if self.cost_aware:
                scores = scores - self._log_seconds(views.numeric)
            return scores

        return judge

    def _fit(self, kernel: KernelName, read: Reader | None, reference: np.ndarray) -> Surrogate:
        data = self._observations
        observed = self._views(data.cube, read, data)
        targets = torch.from_numpy(data.targets)
        return fit_surrogate(observed, targets, kernel, self._views(reference, read), self.design)

    def _situation(self, surrogate: Surrogate, read: Reader | None) -> Situation:
        own = self._observations.cube[: len(self._observations.kept)]
        views = self._views(own, read)
        features = surrogate.features(views)
        pending = self.space.to_unit(self.history.pending)
        constraints = {
            name: values[self._observations.kept]
            for name, values in self.history.constraints.items()
        }
        p = views.numeric.shape[1]
        return Situation(
            model=surrogate.model,
            observed=features,
            best=self._observations.best,
            pending=surrogate.features(self._views(pending, read))
            if len(pending)
            else features[:0],
            constraints=fit_constraints(features, p, constraints, self._failed),
        )

    def _views(
        self, cube: np.ndarray, read: Reader | None, data: Observations | None = None
    ) -> Views:
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
    def _log_seconds(self) -> Callable[[Tensor], np.ndarray]:
        kept = self._observations.kept
        numeric = torch.from_numpy(self._numeric_view(self._observations.cube[: len(kept)]))
        return fit_log_seconds(numeric, self.history.seconds[kept])

    @cached_property
    def _failed(self) -> Tensor:
        if not self.history.infeasible:
            return torch.zeros(0, 0, dtype=torch.float64)
        latest = self.history.infeasible[-MAX_OBSERVED:]
        return torch.from_numpy(self._numeric_view(self.space.to_unit(latest)))
