"""Configurations to check a plan with before the first trial."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import math
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution


_N = 100


def draws(space: Mapping[str, BaseDistribution]) -> Iterator[dict[str, Any]]:
    """Each parameter's ends, or choices, with random values of the others; the same every time."""
    rng = np.random.default_rng(0)
    for name, distribution in space.items():
        for end in _ends(distribution):
            yield {**_random(space, rng), name: end}
    for _ in range(_N):
        yield _random(space, rng)


def _ends(distribution: BaseDistribution) -> tuple[Any, ...]:
    if isinstance(distribution, CategoricalDistribution):
        return tuple(distribution.choices)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    return (distribution.low, distribution.high)


def _random(space: Mapping[str, BaseDistribution], rng: np.random.Generator) -> dict[str, Any]:
    return {name: _drawn(one, rng) for name, one in space.items()}


def _drawn(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[rng.integers(len(distribution.choices))]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high, step = distribution.low, distribution.high, distribution.step
    if isinstance(distribution, IntDistribution) or step is not None:
        n = round((high - low) / (step or 1))
        return low + int(rng.integers(n + 1)) * (step or 1)
    if distribution.log:
        return math.exp(rng.uniform(math.log(low), math.log(high)))
    return float(rng.uniform(low, high))
