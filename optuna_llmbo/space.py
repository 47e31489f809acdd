"""Search spaces: Optuna distributions, values, and the unit cube.

A *configuration* maps parameter names to values as Optuna's `trial.params` gives them. It is the
truth; the unit cube and the text are derived from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import itertools
import math
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution


Configuration = Mapping[str, Any]
Key = tuple[float, ...]


@dataclass(frozen=True)
class Axis:
    """One parameter: between its values and the unit interval.

    Numbers keep their order, on a log scale where the distribution says so. Categorical choices
    that are all numbers are ordinal: their place in sorted order counts, not their size. Other
    choices have no order.
    """

    distribution: BaseDistribution

    @property
    def n_values(self) -> float:
        """How many values there are; infinite for a float without a step."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return len(d.choices)
        if d.single():
            return 1
        step = _step(d)
        return math.inf if step is None else round((d.high - d.low) / step) + 1  # type: ignore[attr-defined]

    @property
    def is_nominal(self) -> bool:
        """Whether the values have no order: choices that are not all numbers."""
        d = self.distribution
        return isinstance(d, CategoricalDistribution) and not all(map(_is_number, d.choices))

    @property
    def width(self) -> int:
        """Columns in the unit cube: one, or one a choice for three or more nominal choices."""
        return int(self.n_values) if self.is_nominal and self.n_values > 2 else 1

    def values(self) -> list[Any]:
        """All values of a finite axis, in order."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return [d.choices[i] for i in self._order]
        step = _step(d) or 0
        return [self._admit(d.low + i * step) for i in range(int(self.n_values))]  # type: ignore[attr-defined]

    def from_unit(self, u: float) -> Any:
        """The value at `u` in [0, 1]; every value of a finite axis owns an equal share of the
        interval (on a log scale, the share that rounds to it)."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return d.choices[self._order[self._index(u)]]
        if d.single():
            return d.low  # type: ignore[attr-defined]
        if getattr(d, "log", False):
            low, high = self._log_bounds
            return self._admit(math.exp(low + u * (high - low)))
        step = _step(d)
        low, high = d.low, d.high  # type: ignore[attr-defined]
        return self._admit(low + (u * (high - low) if step is None else self._index(u) * step))

    def to_unit(self, value: Any) -> float:
        """The place of `value` in [0, 1]; values outside the range count as its nearest end."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return (self._order.index(int(d.to_internal_repr(value))) + 0.5) / len(d.choices)
        if d.single():
            return 0.5
        value = min(max(value, d.low), d.high)  # type: ignore[attr-defined]
        if getattr(d, "log", False):
            low, high = self._log_bounds
            return (math.log(value) - low) / (high - low)
        step = _step(d)
        if step is None:
            return (value - d.low) / (d.high - d.low)  # type: ignore[attr-defined]
        return (round((value - d.low) / step) + 0.5) / self.n_values  # type: ignore[attr-defined]

    def nearest(self, value: Any) -> Any | None:
        """The admissible value closest to `value`, or None where closeness means nothing."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            if any(type(c) is type(value) and c == value for c in d.choices):
                return value
            numbers = [c for c in d.choices if _is_number(c)] if _is_number(value) else []
            return min(numbers, key=lambda c: abs(c - value), default=None)
        return self._admit(value) if _is_number(value) else None

    def _admit(self, value: float) -> int | float:
        d = self.distribution
        step = _step(d)
        low, high = d.low, d.high  # type: ignore[attr-defined]
        if step is not None:
            value = low + round((value - low) / step) * step
        value = min(max(value, low), high)
        return int(value) if isinstance(d, IntDistribution) else float(value)

    def _index(self, u: float) -> int:
        return min(int(u * self.n_values), int(self.n_values) - 1)

    @property
    def _order(self) -> list[int]:
        choices = self.distribution.choices  # type: ignore[attr-defined]
        indices = list(range(len(choices)))
        return indices if self.is_nominal else sorted(indices, key=lambda i: choices[i])

    @property
    def _log_bounds(self) -> tuple[float, float]:
        d = self.distribution
        margin = 0.5 if isinstance(d, IntDistribution) else 0.0
        return math.log(d.low - margin), math.log(d.high + margin)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class SearchSpace:
    """The parameters that are chosen together, by name."""

    distributions: Mapping[str, BaseDistribution]

    @property
    def names(self) -> tuple[str, ...]:
        """The parameter names, sorted, so that nothing depends on the order of suggestion."""
        return tuple(sorted(self.distributions))

    def axis(self, name: str) -> Axis:
        """The axis of one parameter."""
        return Axis(self.distributions[name])

    @property
    def n_configurations(self) -> float:
        """How many configurations there are; infinite if a parameter is continuous."""
        return math.prod(self.axis(name).n_values for name in self.names)

    def restrict(self, params: Mapping[str, Any]) -> Configuration | None:
        """The part of a trial's parameters that lies in this space; None if one is missing."""
        if not all(name in params for name in self.names):
            return None
        return {name: params[name] for name in self.names}

    def key(self, configuration: Configuration) -> Key:
        """What two equal configurations share; fit for a set."""
        return tuple(
            float(self.distributions[name].to_internal_repr(configuration[name]))
            for name in self.names
        )

    def from_unit(self, cube: np.ndarray) -> list[Configuration]:
        """Configurations at points of the cube with one coordinate a parameter, (m, n names)."""
        axes = [(name, self.axis(name)) for name in self.names]
        return [
            {name: axis.from_unit(float(u)) for (name, axis), u in zip(axes, point, strict=True)}
            for point in cube
        ]

    def to_unit(self, configurations: Sequence[Configuration]) -> np.ndarray:
        """The inverse of `from_unit`, up to rounding: (m, n names) in [0, 1]."""
        columns = [
            [axis.to_unit(configuration[name]) for configuration in configurations]
            for name, axis in ((name, self.axis(name)) for name in self.names)
        ]
        return np.asarray(columns, dtype=np.float64).T.reshape(len(configurations), -1)

    def unit_cube(self, configurations: Sequence[Configuration]) -> np.ndarray:
        """Features for a kernel: (m, sum of the axes' widths) in [0, 1].

        Three or more choices without an order become one column each, scaled so that any two
        different choices are at distance one.
        """
        columns = []
        for name in self.names:
            axis = self.axis(name)
            units = np.array([axis.to_unit(c[name]) for c in configurations])
            if axis.width > 1:
                index = (units * axis.width).astype(int)
                columns.append(np.eye(axis.width)[index] / math.sqrt(2))
            else:
                columns.append(units[:, None])
        return np.hstack(columns).reshape(len(configurations), -1)

    def grid(self) -> Iterator[Configuration]:
        """All configurations of a finite space."""
        values = [self.axis(name).values() for name in self.names]
        for combination in itertools.product(*values):
            yield dict(zip(self.names, combination, strict=True))


def _step(distribution: BaseDistribution) -> float | int | None:
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return distribution.step
    raise TypeError(f"unknown distribution {distribution!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
