"""A task of the race: its search space, the value of a configuration, and its scale."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import BaseTrial

from optuna_llmbo.errors import InputError
from optuna_llmbo.space.search_space import suggest


Configuration = Mapping[str, Any]
Distributions = Mapping[str, BaseDistribution]

FAMILIES = ("hpobench", "lora", "bbob", "conditional", "draws", "branches", "real", "choices")

N_DRAWS = 4096
"""Random configurations whose median is a task's middle, if the space is not finite."""


class TrialFailed(RuntimeError):
    """The configuration has no value, as when training runs out of memory; the race goes on."""


@dataclass(frozen=True)
class Task:
    """A problem without noise, to be minimized."""

    name: str
    family: str
    sentence: str
    """Description of what is being optimized, for a prompt."""
    distributions: Distributions | None
    """The search space; None if it is conditional."""
    suggest: Callable[[BaseTrial], Configuration]
    """Suggests a configuration for a trial."""
    value: Callable[[Configuration], float]
    """Computes the value of a configuration; lower is better.

    Raises TrialFailed if there is none.
    """
    best: float
    """The lowest value, or the lowest found if that is unknown."""
    middle: float
    """Median value of random configurations, of those that succeed."""
    default: Configuration
    """The configuration to try without a search."""
    may_be_nan: bool = False
    """Whether failures may be told by a value that is not a number; else it is an error."""
    listed: Sequence[Configuration] = ()
    """Configurations of the table that the task is made of; none without a table."""

    def objective(self, trial: BaseTrial) -> float:
        """Objective for Optuna."""
        return self.value(self.suggest(trial))

    def regret(self, value: float) -> float:
        """Compute the regret: 0 for the best value, 1 for the median random configuration."""
        return (value - self.best) / (self.middle - self.best)


def suggest_all(distributions: Distributions) -> Callable[[BaseTrial], Configuration]:
    """Return a function that suggests every parameter, independently of the others."""
    return lambda trial: suggest(trial, distributions)


def draw(distributions: Distributions, n: int, seed: int) -> list[dict[str, Any]]:
    """Draw random configurations, uniform on each parameter's own scale.

    Integers are drawn by rounding a range extended by one half at both ends, so that the first
    and the last get their full share.
    """
    rng = np.random.default_rng(seed)
    columns = {name: _draw_one(d, rng.random(n)) for name, d in distributions.items()}
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, values, strict=True)) for values in rows]


def _draw_one(distribution: BaseDistribution, uniform: np.ndarray) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        n = len(distribution.choices)
        return [distribution.choices[int(i)] for i in np.minimum(uniform * n, n - 1)]
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        raise InputError(f"cannot draw from {distribution!r}: expected an Optuna distribution.")
    if distribution.step not in (None, 1):
        raise InputError(f"cannot draw from {distribution!r}: expected no step.")
    is_int = isinstance(distribution, IntDistribution)
    low, high = distribution.low, distribution.high
    margin = 0.5 if is_int else 0.0
    ends = np.array([low - margin, high + margin])
    if distribution.log:
        values = np.exp(np.log(ends[0]) + uniform * (np.log(ends[1]) - np.log(ends[0])))
    else:
        values = ends[0] + uniform * (ends[1] - ends[0])
    return np.clip(np.rint(values).astype(int) if is_int else values, low, high).tolist()


def nearest_in_log(levels: list[float], value: float) -> int:
    """Find the level whose ratio to the value is closest to 1; return its index."""
    return min(range(len(levels)), key=lambda i: abs(math.log(levels[i] / value)))
