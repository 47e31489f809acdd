"""Search spaces: Optuna distributions, values, and the unit cube.

A *configuration* maps parameter names to values as Optuna's `trial.params` gives them. It is the
truth; the unit cube and the text are derived from it. A parameter that only some trials have may
be missing in a configuration; in the cube its coordinate is nan then.
"""

from __future__ import annotations

from collections.abc import Callable
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
_ABSENT_KEY = -9.0
"""In keys, where nan would differ from itself."""
_FARTHEST = 1.0
"""How far outside the unit interval a value outside the range may be: one more range."""


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
        """The place of `value`: in [0, 1], or up to one range outside if it is out of range.

        So a range that has changed keeps what was learned of the values that it has lost.
        """
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            index = int(np.flatnonzero(self._order == int(d.to_internal_repr(value)))[0])
            return (index + 0.5) / len(d.choices)
        if d.single():
            return 0.5
        return float(self._place(np.array([value], dtype=np.float64))[0])

    def place(self, number: float) -> float:
        """The place in [0, 1] next to a number's; nan without an order."""
        d = self.distribution
        if not isinstance(d, CategoricalDistribution):
            return self.to_unit(min(max(number, d.low), d.high))  # type: ignore[attr-defined]
        if self.is_nominal:
            return math.nan
        choices = np.array(d.choices, dtype=np.float64)[self._order]
        return float(np.interp(number, choices, self.places()))

    def has_place(self, value: Any) -> bool:
        """Whether a value is one of the choices, or any number."""
        d = self.distribution
        return (
            self.contains(value) if isinstance(d, CategoricalDistribution) else _is_number(value)
        )

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
        if _is_log(d):
            log_low, log_high = self._log_bounds
            logs = np.log(np.maximum(values, np.finfo(np.float64).tiny))
            places = (logs - log_low) / (log_high - log_low)
        elif (step := _step(d)) is None:
            places = (values - low) / (high - low)
        else:
            places = (np.round((values - low) / step) + 0.5) / self.n_values
        return np.clip(places, -_FARTHEST, 1 + _FARTHEST)

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

    A *cube* is an array of points with one coordinate a parameter, (m, n names) in [0, 1], nan
    where a point lacks the parameter.
    """

    distributions: Mapping[str, BaseDistribution]
    groups: tuple[tuple[str, ...], ...] = ()
    """Parameters that not every configuration has; those of a group are there together."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The parameter names, sorted, so that nothing depends on the order of suggestion."""
        return tuple(sorted(self.distributions))

    @cached_property
    def shared(self) -> tuple[str, ...]:
        """The names of the parameters that every configuration has, sorted."""
        optional = {name for group in self.groups for name in group}
        return tuple(name for name in self.names if name not in optional)

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The parameters' axes, in the order of the names."""
        return tuple(Axis(self.distributions[name]) for name in self.names)

    def axis(self, name: str) -> Axis:
        """The axis of one parameter."""
        return self.axes[self.names.index(name)]

    @property
    def n_configurations(self) -> float:
        """How many configurations there are, if all have all parameters; infinite if one of these
        is continuous."""
        return math.prod(axis.n_values for axis in self.axes)

    def restrict(self, params: Mapping[str, Any]) -> Configuration | None:
        """The part of a trial's parameters that lies in this space.

        None if a shared parameter is missing or there is none at all, or if a value has no place:
        a choice that is gone.
        """
        if not all(name in params for name in self.shared):
            return None
        pairs = zip(self.names, self.axes, strict=True)
        known = {name: (params[name], axis) for name, axis in pairs if name in params}
        if not known or not all(axis.has_place(value) for value, axis in known.values()):
            return None
        return {name: value for name, (value, _) in known.items()}

    def contains(self, configuration: Configuration) -> bool:
        """Whether all values of a configuration are within their ranges."""
        return all(self.axis(name).contains(value) for name, value in configuration.items())

    def checked(self, params: Mapping[str, Any]) -> Configuration:
        """A user's parameters as a configuration of this space.

        Raises:
            InputError: if one that all configurations have is missing, or one is out of its range.
        """
        missing = [name for name in self.shared if name not in params]
        if missing:
            raise InputError(f"expected values for {list(self.shared)}; {missing} are missing.")
        known = {name: params[name] for name in self.names if name in params}
        for name, value in known.items():
            if not self.axis(name).contains(value):
                raise InputError(f"{name}={value!r} is not in {self.distributions[name]}.")
        return known

    def keys(self, cube: np.ndarray) -> list[Key]:
        """What points of one configuration share, and others do not; fit for a set."""
        rounded = np.nan_to_num(np.round(cube, _KEY_DIGITS), nan=_ABSENT_KEY)
        return [tuple(row) for row in rounded.tolist()]

    def key(self, configuration: Configuration) -> Key:
        """The key of a configuration."""
        return self.keys(self.to_unit([configuration]))[0]

    def snap(self, cube: np.ndarray) -> np.ndarray:
        """Points moved to the places of admissible values, (m, n names)."""
        pairs = zip(self.axes, cube.T, strict=True)
        return np.column_stack([_where_present(axis.snap, units) for axis, units in pairs])

    def numbers(self, cube: np.ndarray) -> dict[str, np.ndarray]:
        """The values at points, a column (m,) float64 for each name; nan for nominal choices and
        for what a point lacks."""
        columns = zip(self.names, self.axes, cube.T, strict=True)
        return {name: _where_present(axis.numbers, units) for name, axis, units in columns}

    def from_unit(self, cube: np.ndarray) -> list[Configuration]:
        """Configurations at points of a cube."""
        return [
            {
                name: axis.from_unit(float(u))
                for name, axis, u in zip(self.names, self.axes, point, strict=True)
                if not np.isnan(u)
            }
            for point in cube
        ]

    def to_unit(self, configurations: Sequence[Configuration]) -> np.ndarray:
        """The inverse of `from_unit`: the places of m configurations, (m, n names)."""
        columns = [
            [axis.to_unit(c[name]) if name in c else math.nan for c in configurations]
            for name, axis in zip(self.names, self.axes, strict=True)
        ]
        return np.asarray(columns, dtype=np.float64).T.reshape(len(configurations), len(self.axes))

    def features(self, cube: np.ndarray) -> np.ndarray:
        """Features for a kernel: (m, sum of the axes' widths + groups), [0, 1] inside the ranges.

        Three or more choices without an order become one column each, scaled so that any two
        different choices are at distance one. A parameter that a point lacks is in the middle
        of its range, or equally far from all choices; a column a group says whether it is there.
        """
        columns = []
        for axis, units in zip(self.axes, cube.T, strict=True):
            present = ~np.isnan(units)
            if axis.width > 1:
                index = (np.where(present, units, 0.0) * axis.width).astype(int)
                columns.append(np.eye(axis.width)[index] * present[:, None] / math.sqrt(2))
            else:
                columns.append(np.where(present, units, 0.5)[:, None])
        for group in self.groups:
            present = ~np.isnan(cube[:, self.names.index(group[0])])
            columns.append(present[:, None].astype(np.float64))
        return np.hstack(columns).reshape(len(cube), -1)

    def grid(self) -> np.ndarray:
        """The places of all configurations of a finite space without groups, (m, n names)."""
        mesh = np.meshgrid(*(axis.places() for axis in self.axes), indexing="ij")
        return np.stack(mesh, axis=-1).reshape(-1, len(self.axes))


def _where_present(function: Callable[[np.ndarray], np.ndarray], units: np.ndarray) -> np.ndarray:
    """A function of places, nan where there is none."""
    present = ~np.isnan(units)
    values = np.full(len(units), np.nan)
    values[present] = function(units[present])
    return values


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
