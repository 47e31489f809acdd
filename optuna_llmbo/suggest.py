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
from optuna_llmbo.acquisition import score_candidates
from optuna_llmbo.acquisition import Situation
from optuna_llmbo.candidates import candidate_pool
from optuna_llmbo.encoder import Reading
from optuna_llmbo.feasibility import fit_constraints
from optuna_llmbo.features import NumericView
from optuna_llmbo.history import History
from optuna_llmbo.space import Configuration
from optuna_llmbo.space import SearchSpace
from optuna_llmbo.surrogate import fit_surrogate
from optuna_llmbo.surrogate import KernelName
from optuna_llmbo.surrogate import robust_standardize
from optuna_llmbo.surrogate import Views


Reader = Callable[[Sequence[Configuration]], Reading]
"""Writes configurations out as text and has the language model read them."""

_N_POOL = 2048
_N_BEST = 3
_SHARE_BY_CHANCE = 0.25


@dataclass(frozen=True)
class Suggestion:
    """One decision: what is known, and how to choose."""

    space: SearchSpace
    history: History
    numeric_view: NumericView
    n_candidates: int
    """How many configurations the language model reads."""
    acquisition: AcquisitionName
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
        pool = candidate_pool(self.space, self.history.seen, self._best, n=_N_POOL, rng=rng)
        shortlist = pool if read is None else self._shortlist(pool, kernel, rng)
        return shortlist[int(self._scores(shortlist, kernel, read).argmax())]

    def _shortlist(
        self, pool: list[Configuration], kernel: KernelName, rng: np.random.Generator
    ) -> list[Configuration]:
        """What the language model reads: the best by the numbers alone, a quarter by chance.

        With the text kernel alone all of it is by chance, so that the numbers have no say.
        """
        if len(pool) <= self.n_candidates:
            return pool
        by_rank = 0
        if kernel != "text":
            by_rank = self.n_candidates - int(self.n_candidates * _SHARE_BY_CHANCE)
        order = rng.permutation(len(pool))
        chosen = order[:0]
        if by_rank:
            scores = self._scores(pool, "numeric", None).numpy()
            chosen = np.argsort(-scores, kind="stable")[:by_rank]
        others = order[~np.isin(order, chosen)][: self.n_candidates - by_rank]
        return [pool[i] for i in (*chosen, *others)]

    def _scores(
        self, candidates: Sequence[Configuration], kernel: KernelName, read: Reader | None
    ) -> Tensor:
        """The acquisition function's value of each candidate under a freshly fitted surrogate."""
        observed = self._views(self.history.configurations, read)
        offered = self._views(candidates, read)
        targets = self._targets
        surrogate = fit_surrogate(observed, targets, kernel, reference=offered)
        features = surrogate.observed
        p = observed.numeric.shape[1]
        situation = Situation(
            model=surrogate.model,
            observed=features,
            best=float(targets.max()),
            noise=surrogate.noise,
            pending=self._pending(surrogate.features, read, width=features.shape[1]),
            constraints=fit_constraints(features, p, self.history.constraints, self._failed),
        )
        return score_candidates(
            surrogate.features(offered), situation, self.acquisition, seed=self.seed
        )

    def _views(self, configurations: Sequence[Configuration], read: Reader | None) -> Views:
        numeric = torch.from_numpy(self.numeric_view(configurations))
        return Views(numeric, read(configurations) if read is not None else None)

    def _pending(
        self, features: Callable[[Views], Tensor], read: Reader | None, width: int
    ) -> Tensor:
        if not self.history.pending:
            return torch.zeros(0, width, dtype=torch.float64)
        return features(self._views(self.history.pending, read))

    @cached_property
    def _failed(self) -> Tensor:
        if not self.history.infeasible:
            return torch.zeros(0, 0, dtype=torch.float64)
        return torch.from_numpy(self.numeric_view(self.history.infeasible))

    @cached_property
    def _targets(self) -> Tensor:
        return torch.from_numpy(robust_standardize(self.history.targets))

    @property
    def _best(self) -> list[Configuration]:
        order = np.argsort(-self.history.targets, kind="stable")[:_N_BEST]
        return [self.history.configurations[i] for i in order]
