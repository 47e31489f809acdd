"""Where good values are expected before any trial, as a density over the unit cube."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.stats import truncnorm

from optuna_llmbo.errors import InputError
from optuna_llmbo.knowledge.schema import is_range
from optuna_llmbo.space.search_space import SearchSpace


Range = tuple[float, float]

_TRUST = 0.9
"""Weight of the expected range against the uniform density: however wrong, it excludes nothing."""
_LEAST_STANDARD_DEVIATION = 0.05


def check_ranges(ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Check a user's expected ranges.

    Raises:
        InputError: if it is no mapping, or one is not a pair of finite numbers, the lower first.
    """
    if not isinstance(ranges, Mapping):
        raise InputError(
            "prior must be a dict from parameter names to (low, high), such as "
            f'{{"learning_rate": (1e-4, 5e-4)}}; got {ranges!r}.'
        )
    for name, expected in ranges.items():
        if not is_range(expected):
            raise InputError(
                f"prior[{name!r}] must be (low, high), two finite numbers, the lower first; "
                f"got {expected!r}."
            )
    return {name: (float(low), float(high)) for name, (low, high) in ranges.items()}


@dataclass(frozen=True)
class Prior:
    """Independent densities, one for each hyperparameter with an expected range.

    On the parameter's own scale, a normal density whose central 68% is the range, truncated to
    the parameter's bounds and mixed with the uniform one.
    """

    space: SearchSpace
    ranges: Mapping[str, Range]

    @property
    def is_informative(self) -> bool:
        """Whether it expects anything in this space."""
        return bool(self._expected)

    @property
    def effective(self) -> dict[str, Range]:
        """The ranges that say something in this space, by name."""
        names = (self.space.names[column] for column in self._expected)
        return {name: self.ranges[name] for name in names}

    def standardized(self, points: np.ndarray) -> np.ndarray:
        """Log density at points (m, d), (m,), of mean 0 and variance 1 over the space."""
        mean, standard_deviation = self._moments
        return (self.log_density(points) - mean) / standard_deviation

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """Log density at points (m, d), (m,) float64; 0 where nothing is expected."""
        total = np.zeros(len(points))
        for column, expected in self._expected.items():
            density = _TRUST * expected.pdf(points[:, column]) + 1 - _TRUST
            total += np.log(np.where(np.isnan(density), 1.0, density))
        return total

    def warp(self, uniform: np.ndarray) -> np.ndarray:
        """Map points of the uniform density, (m, d), to points of the expected one."""
        warped = uniform.copy()
        for column, expected in self._expected.items():
            warped[:, column] = expected.ppf(uniform[:, column])
        return warped

    @cached_property
    def _moments(self) -> tuple[float, float]:
        """Mean and standard deviation of the log density over the space."""
        densities = self.log_density(self.space.reference)
        return float(densities.mean()), float(densities.std()) or 1.0

    @cached_property
    def _expected(self) -> dict[int, Any]:
        """Truncated normal densities by column; ranges outside the space say nothing."""
        found = {}
        for column, (name, axis) in enumerate(zip(self.space.names, self.space.axes, strict=True)):
            if name in self.ranges and not axis.is_nominal:
                left, right = map(axis.place, self.ranges[name])
                if left < right:
                    centre = (left + right) / 2
                    scale = max((right - left) / 2, _LEAST_STANDARD_DEVIATION)
                    ends = (np.array([0.0, 1.0]) - centre) / scale
                    found[column] = truncnorm(*ends, loc=centre, scale=scale)
        return found
