"""What a suggestion comes to: the configuration to try, and what is expected of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from optuna_llmbo.space.search_space import Configuration


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
    """What the surrogate expects, one for each objective, larger is better, in its units."""
    standard_deviations: tuple[float, ...]
    """How sure the surrogate is: half of the central 68% interval of the trial's value, noise
    included."""
    trust: float | None = None
    """The probability that values are better where they were expected to be; None if nothing is
    expected."""


@dataclass(frozen=True)
class Terms:
    """Why points are worth trying: the terms that add up to their scores. (m,) float64 each."""

    improvement: np.ndarray
    """The acquisition function: a logarithm, as the others."""
    prior: np.ndarray
    """The log density of where good values are expected, times trust, over the number of trials; 0
    where nothing is expected."""
    cost: np.ndarray
    """Minus the expected logarithm of the seconds, up to a constant; 0 unless cost-aware."""

    @property
    def score(self) -> np.ndarray:
        """Their sum."""
        return np.asarray(self.improvement + self.prior + self.cost)
