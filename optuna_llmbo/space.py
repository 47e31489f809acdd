"""Search spaces: Optuna distributions, values, and the unit cube.

A *configuration* maps parameter names to values as Optuna's `trial.params` gives them. It is the
truth; the unit cube and the text are derived from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
import math
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from optuna_llmbo.errors import InputError


Configuration = Mapping[str, Any]
Key = tuple[float, ...]

_KEY_DIGITS = 9


@dataclass(frozen=True)
class Axis:
    """One parameter: between its values and the unit interval.

    Numbers keep their order, on a log scale where the distribution says so. Categorical choices
    that are all numbers are ordinal: their place in sorted order counts, not their size. Other
    choices have no order.
    """

    distribution: BaseDistribution

    @cached_property
    def n_values(self) -> float:
        """How many values there are; infinite for a float without a step."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return len(d.choices)
        if d.single():
            return 1
        step = _step(d)
        return math.inf if step is None else round((d.high - d.low) / step) + 1  # type: ignore[attr-defined]

    @cached_property
    def is_nominal(self) -> bool:
        """Whether the values have no order: choices that are not all numbers."""
        d = self.distribution
        return isinstance(d, CategoricalDistribution) and not all(map(_is_number, d.choices))

    @property
    def width(self) -> int:
        """Columns in the unit cube: one, or one a choice for three or more nominal choices."""
        return int(self.n_values) if self.is_nominal and self.n_values > 2 else 1

    def places(self) -> np.ndarray:
        """The places of all values of a finite axis, in order, in [0, 1]."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution) or d.single() or not _is_log(d):
            return (np.arange(int(self.n_values)) + 0.5) / self.n_values
        return self._place(d.low + np.arange(int(self.n_values)) * (_step(d) or 1))  # type: ignore[attr-defined]

    def numbers(self, units: np.ndarray) -> np.ndarray:
        """The values at points of [0, 1] as float64, nan for choices without an order.

        Every value of a finite axis owns an equal share of the interval (on a log scale, the
        share that rounds to it).
        """
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            if self.is_nominal:
                return np.full(len(units), np.nan)
            return np.array(d.choices, dtype=np.float64)[self._order][self._index(units)]
        if d.single():
            return np.full(len(units), float(d.low))  # type: ignore[attr-defined]
        if _is_log(d):
            low, high = self._log_bounds
            return self._admit(np.exp(low + units * (high - low)))
        step = _step(d)
        low, high = d.low, d.high  # type: ignore[attr-defined]
        offset = units * (high - low) if step is None else self._index(units) * step
        return self._admit(low + offset)

    def snap(self, units: np.ndarray) -> np.ndarray:
        """The places of the values at points of [0, 1]."""
        if math.isinf(self.n_values):
            return np.clip(units, 0.0, 1.0)
        if _is_log(self.distribution) and not self.distribution.single():
            return self._place(self.numbers(units))
        return (self._index(units) + 0.5) / self.n_values

    def from_unit(self, u: float) -> Any:
        """The value at `u` in [0, 1]."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return d.choices[self._order[int(self._index(np.array([u]))[0])]]
        return self._typed(self.numbers(np.array([u]))[0])

    def to_unit(self, value: Any) -> float:
        """The place of `value` in [0, 1]; values outside the range count as its nearest end."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            index = int(np.flatnonzero(self._order == int(d.to_internal_repr(value)))[0])
            return (index + 0.5) / len(d.choices)
        if d.single():
            return 0.5
        return float(self._place(np.array([value], dtype=np.float64))[0])

    def place(self, number: float) -> float:
        """The place in [0, 1] of a number that need not be admissible; nan without an order."""
        d = self.distribution
        if not isinstance(d, CategoricalDistribution):
            return self.to_unit(number)
        if self.is_nominal:
            return math.nan
        choices = np.array(d.choices, dtype=np.float64)[self._order]
        return float(np.interp(number, choices, self.places()))

    def contains(self, value: Any) -> bool:
        """Whether a value is one of the choices, or a number within the range."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return any(type(c) is type(value) and (c == value or c is value) for c in d.choices)
        return _is_number(value) and d.low <= value <= d.high  # type: ignore[attr-defined]

    def nearest(self, value: Any) -> Any | None:
        """The admissible value closest to `value`, or None where closeness means nothing."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            if any(type(c) is type(value) and c == value for c in d.choices):
                return value
            numbers = [c for c in d.choices if _is_number(c)] if _is_number(value) else []
            return min(numbers, key=lambda c: abs(c - value), default=None)
        if not _is_number(value):
            return None
        return self._typed(self._admit(np.array([value], dtype=np.float64))[0])

    def _place(self, values: np.ndarray) -> np.ndarray:
        """Places of numbers in [0, 1]; not for categorical or single-valued distributions."""
        d = self.distribution
        low, high = d.low, d.high  # type: ignore[attr-defined]
        values = np.clip(values, low, high)
        if _is_log(d):
            log_low, log_high = self._log_bounds
            return (np.log(values) - log_low) / (log_high - log_low)
        step = _step(d)
        if step is None:
            return (values - low) / (high - low)
        return (np.round((values - low) / step) + 0.5) / self.n_values

    def _admit(self, values: np.ndarray) -> np.ndarray:
        d = self.distribution
        step = _step(d)
        low, high = d.low, d.high  # type: ignore[attr-defined]
        if step is not None:
            values = low + np.round((values - low) / step) * step
        return np.clip(values, low, high)

    def _typed(self, value: float) -> int | float:
        return int(value) if isinstance(self.distribution, IntDistribution) else float(value)

    def _index(self, units: np.ndarray) -> np.ndarray:
        n = int(self.n_values)
        return np.clip((units * n).astype(int), 0, n - 1)

    @cached_property
    def _order(self) -> np.ndarray:
        choices = self.distribution.choices  # type: ignore[attr-defined]
        indices = list(range(len(choices)))
        return np.array(indices if self.is_nominal else sorted(indices, key=lambda i: choices[i]))

    @property
    def _log_bounds(self) -> tuple[float, float]:
        d = self.distribution
        margin = 0.5 if isinstance(d, IntDistribution) else 0.0
        return math.log(d.low - margin), math.log(d.high + margin)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class SearchSpace:
    """The parameters that are chosen together, by name.

    A *cube* is an array of points with one coordinate a parameter, (m, n names) in [0, 1].
    """

    distributions: Mapping[str, BaseDistribution]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The parameter names, sorted, so that nothing depends on the order of suggestion."""
        return tuple(sorted(self.distributions))

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The parameters' axes, in the order of the names."""
        return tuple(Axis(self.distributions[name]) for name in self.names)

    def axis(self, name: str) -> Axis:
        """The axis of one parameter."""
        return self.axes[self.names.index(name)]

    @property
    def n_configurations(self) -> float:
        """How many configurations there are; infinite if a parameter is continuous."""
        return math.prod(axis.n_values for axis in self.axes)

    def restrict(self, params: Mapping[str, Any]) -> Configuration | None:
        """The part of a trial's parameters that lies in this space; None if one is missing."""
        if not all(name in params for name in self.names):
            return None
        return {name: params[name] for name in self.names}

    def contains(self, configuration: Configuration) -> bool:
        """Whether all values of a configuration are within their ranges."""
        pairs = zip(self.names, self.axes, strict=True)
        return all(axis.contains(configuration[name]) for name, axis in pairs)

    def checked(self, params: Mapping[str, Any]) -> Configuration:
        """A user's parameters as a configuration of this space.

        Raises:
            InputError: if one is missing or out of its range.
        """
        missing = [name for name in self.names if name not in params]
        if missing:
            raise InputError(f"expected values for {list(self.names)}; {missing} are missing.")
        for name, axis in zip(self.names, self.axes, strict=True):
            if not axis.contains(params[name]):
                raise InputError(f"{name}={params[name]!r} is not in {axis.distribution}.")
        return {name: params[name] for name in self.names}

    def keys(self, cube: np.ndarray) -> list[Key]:
        """What points of one configuration share, and others do not; fit for a set."""
        return [tuple(row) for row in np.round(cube, _KEY_DIGITS).tolist()]

    def key(self, configuration: Configuration) -> Key:
        """The key of a configuration."""
        return self.keys(self.to_unit([configuration]))[0]

    def snap(self, cube: np.ndarray) -> np.ndarray:
        """Points moved to the places of admissible values, (m, n names)."""
        columns = [axis.snap(units) for axis, units in zip(self.axes, cube.T, strict=True)]
        return np.column_stack(columns)

    def numbers(self, cube: np.ndarray) -> dict[str, np.ndarray]:
        """The values at points, a column (m,) float64 for each name; nan for nominal choices."""
        columns = zip(self.names, self.axes, cube.T, strict=True)
        return {name: axis.numbers(units) for name, axis, units in columns}

    def from_unit(self, cube: np.ndarray) -> list[Configuration]:
        """Configurations at points of a cube."""
        return [
            {
                name: axis.from_unit(float(u))
                for name, axis, u in zip(self.names, self.axes, point, strict=True)
            }
            for point in cube
        ]

    def to_unit(self, configurations: Sequence[Configuration]) -> np.ndarray:
        """The inverse of `from_unit`: the places of m configurations, (m, n names)."""
        columns = [
            [axis.to_unit(configuration[name]) for configuration in configurations]
            for name, axis in zip(self.names, self.axes, strict=True)
        ]
        return np.asarray(columns, dtype=np.float64).T.reshape(-1, len(self.axes))

    def features(self, cube: np.ndarray) -> np.ndarray:
        """Features for a kernel: (m, sum of the axes' widths) in [0, 1].

        Three or more choices without an order become one column each, scaled so that any two
        different choices are at distance one.
        """
        columns = []
        for axis, units in zip(self.axes, cube.T, strict=True):
            if axis.width > 1:
                index = (units * axis.width).astype(int)
                columns.append(np.eye(axis.width)[index] / math.sqrt(2))
            else:
                columns.append(units[:, None])
        return np.hstack(columns).reshape(len(cube), -1)

    def grid(self) -> np.ndarray:
        """The places of all configurations of a finite space, (m, n names)."""
        mesh = np.meshgrid(*(axis.places() for axis in self.axes), indexing="ij")
        return np.stack(mesh, axis=-1).reshape(-1, len(self.axes))


def suggest(trial: optuna.Trial, space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Ask a trial for a value of every distribution, in their order."""
    return {name: _suggest(trial, name, distribution) for name, distribution in space.items()}


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    assert isinstance(distribution, CategoricalDistribution)
    return trial.suggest_categorical(name, distribution.choices)


def _step(distribution: BaseDistribution) -> float | int | None:
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return distribution.step
    raise TypeError(f"unknown distribution {distribution!r}")


def _is_log(distribution: BaseDistribution) -> bool:
    return bool(getattr(distribution, "log", False))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
