"""One hyperparameter's values and their places in the unit interval, [0, 1]."""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
import math
import numbers
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution


_FARTHEST = 1.0
"""How far outside the unit interval a value may be placed: by one range."""

_GRID_TOLERANCE = 1e-8
"""How far from the grid, in steps, a value may lie by rounding; as in Optuna."""


@dataclass(frozen=True)
class Axis:
    """Maps one parameter's values to the unit interval and back.

    Numbers keep their order, on a log scale where the distribution says so. Categorical choices
    that are all numbers are ordinal: their rank counts, not their size. Other choices are nominal:
    they have no order.
    """

    distribution: BaseDistribution

    @cached_property
    def n_values(self) -> float:
        """Number of values; infinite for a float without a step."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return len(d.choices)
        if d.single():
            return 1
        step = _step(d)
        return math.inf if step is None else round((d.high - d.low) / step) + 1  # type: ignore[attr-defined]

    @cached_property
    def is_nominal(self) -> bool:
        """Whether the values are choices without an order: not all of them are numbers."""
        d = self.distribution
        return isinstance(d, CategoricalDistribution) and not all(map(_is_number, d.choices))

    def places(self) -> np.ndarray:
        """The places of all values of a finite axis, in order, in [0, 1]."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution) or d.single() or not _is_log(d):
            return (np.arange(int(self.n_values)) + 0.5) / self.n_values
        return self._place(d.low + np.arange(int(self.n_values)) * (_step(d) or 1))  # type: ignore[attr-defined]

    def numbers(self, units: np.ndarray) -> np.ndarray:
        """The values at places in [0, 1] as float64, nan for nominal choices.

        Each value of a finite axis owns an equal share of the interval (on a log scale, the
        share that rounds to it).
        """
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            if self.is_nominal:
                return np.full(len(units), np.nan)
            return np.array(d.choices, dtype=np.float64)[self._order][self.index(units)]
        if d.single():
            return np.full(len(units), float(d.low))  # type: ignore[attr-defined]
        if _is_log(d):
            low, high = self._log_bounds
            return self._admit(np.exp(low + units * (high - low)))
        step = _step(d)
        low, high = d.low, d.high  # type: ignore[attr-defined]
        offset = units * (high - low) if step is None else self.index(units) * step
        return self._admit(low + offset)

    def snap(self, units: np.ndarray) -> np.ndarray:
        """Move places to those of the nearest values."""
        if math.isinf(self.n_values):
            return np.clip(units, 0.0, 1.0)
        if _is_log(self.distribution) and not self.distribution.single():
            return self._place(self.numbers(units))
        return (self.index(units) + 0.5) / self.n_values

    def from_unit(self, u: float) -> Any:
        """The value at `u` in [0, 1]."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return d.choices[self._order[int(self.index(np.array([u]))[0])]]
        return self._typed(self.numbers(np.array([u]))[0])

    def to_unit(self, value: Any) -> float:
        """The place of `value`: see `to_units`."""
        return float(self.to_units([value])[0])

    def to_units(self, values: Sequence[Any]) -> np.ndarray:
        """The places of m values, (m,): in [0, 1], or up to one range outside if out of range.

        So what was learned of values that a changed range has lost is kept.
        """
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            places = self._choice_places
            return np.array([places[identity(value)] for value in values], dtype=np.float64)
        if d.single():
            return np.full(len(values), 0.5)
        return self._place(np.array(values, dtype=np.float64))

    def place(self, number: float) -> float:
        """The place in [0, 1] nearest to a number's; nan for nominal choices."""
        d = self.distribution
        if not isinstance(d, CategoricalDistribution):
            return self.to_unit(min(max(number, d.low), d.high))  # type: ignore[attr-defined]
        if self.is_nominal:
            return math.nan
        choices = np.array(d.choices, dtype=np.float64)[self._order]
        return float(np.interp(number, choices, self.places()))

    def has_place(self, value: Any) -> bool:
        """Whether a value has a place: one of the choices, or any number."""
        d = self.distribution
        return (
            self.contains(value) if isinstance(d, CategoricalDistribution) else _is_number(value)
        )

    def contains(self, value: Any) -> bool:
        """Whether a value is one of the choices, or a number within the range."""
        d, value = self.distribution, plain(value)
        if isinstance(d, CategoricalDistribution):
            return identity(value) in self._choice_places
        return _is_number(value) and d.low <= value <= d.high  # type: ignore[attr-defined]

    def admits(self, value: Any) -> bool:
        """Whether a value can be suggested: as `contains`, and on the grid where there is one."""
        if not self.contains(value):
            return False
        d = self.distribution
        if isinstance(d, CategoricalDistribution) or (step := _step(d)) is None:
            return True
        steps = (value - d.low) / step  # type: ignore[attr-defined]
        return bool(abs(steps - round(steps)) < _GRID_TOLERANCE)

    def encloses(self, number: float) -> bool:
        """Whether a number lies between the least and the greatest value; never for choices that
        are no numbers."""
        d = self.distribution
        if not isinstance(d, CategoricalDistribution):
            return self.contains(number)
        if self.is_nominal:
            return False
        choices = np.array(d.choices, dtype=np.float64)
        return bool(choices.min() <= number <= choices.max())

    def nearest(self, value: Any) -> Any | None:
        """The admissible value closest to `value`, or None where closeness means nothing."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            if self.contains(value):
                return value
            numbers = [c for c in d.choices if _is_number(c)] if _is_number(value) else []
            return min(numbers, key=lambda c: abs(c - value), default=None)
        if not _is_number(value):
            return None
        return self._typed(self._admit(np.array([value], dtype=np.float64))[0])

    @property
    def values_text(self) -> str:
        """The admissible values in words, such as "a number from 0 to 1"."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return f"one of {', '.join(map(repr, d.choices))}"
        kind = "an integer" if isinstance(d, IntDistribution) else "a number"
        step = _step(d)
        in_steps = f" in steps of {step:g}" if step not in (None, 1) else ""
        return f"{kind} from {d.low:g} to {d.high:g}{in_steps}"  # type: ignore[attr-defined]

    def _place(self, values: np.ndarray) -> np.ndarray:
        """Places of numbers; not for categorical or single-valued distributions."""
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

    def index(self, units: np.ndarray) -> np.ndarray:
        """Which of a finite axis's values is at each place, counted from 0."""
        n = int(self.n_values)
        return np.clip((units * n).astype(int), 0, n - 1)

    @cached_property
    def _order(self) -> np.ndarray:
        choices = self.distribution.choices  # type: ignore[attr-defined]
        indices = list(range(len(choices)))
        return np.array(indices if self.is_nominal else sorted(indices, key=lambda i: choices[i]))

    @cached_property
    def _choice_places(self) -> dict[Hashable, float]:
        """The place of each choice, by its identity."""
        choices = self.distribution.choices  # type: ignore[attr-defined]
        places = (np.arange(len(choices)) + 0.5) / len(choices)
        return {
            identity(choices[i]): float(place)
            for i, place in zip(self._order, places, strict=True)
        }

    @property
    def _log_bounds(self) -> tuple[float, float]:
        d = self.distribution
        margin = 0.5 if isinstance(d, IntDistribution) else 0.0
        return math.log(d.low - margin), math.log(d.high + margin)  # type: ignore[attr-defined]


def _step(distribution: BaseDistribution) -> float | int | None:
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return distribution.step
    raise TypeError(f"unknown distribution {distribution!r}")


def _is_log(distribution: BaseDistribution) -> bool:
    return bool(getattr(distribution, "log", False))


def plain(value: Any) -> Any:
    """A scalar of numpy as Python's own; anything else as it is."""
    is_scalar = isinstance(value, np.generic | np.ndarray) and value.ndim == 0
    return value.item() if is_scalar else value


def identity(value: Any) -> Hashable:
    """What makes two choices the same: type and value; True is not 1, and nan is itself."""
    value = plain(value)
    if isinstance(value, float) and value != value:
        return type(value), "nan"
    try:
        hash(value)
    except TypeError:  # Optuna warns of such choices, but takes them
        return type(value), repr(value)
    return type(value), value


def _is_number(value: Any) -> bool:
    value = plain(value)
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and value == value
