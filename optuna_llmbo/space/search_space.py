"""Search spaces: Optuna distributions, values, and points of the unit cube.

A *configuration* maps parameter names to values as Optuna's `trial.params` gives them. It is the
truth; points and texts are derived from it. A parameter that only some trials have may be absent
from a configuration; its coordinate is nan then.

Shapes: m points, d parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
import math
from types import MappingProxyType
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import BaseTrial
from scipy.stats import qmc

from optuna_llmbo.errors import did_you_mean
from optuna_llmbo.errors import InputError
from optuna_llmbo.space.axis import Axis
from optuna_llmbo.space.axis import plain


Configuration = Mapping[str, Any]
Key = bytes
ABSENT = -1.0
"""Stands for the choice of a nominal parameter that a point lacks."""

_N_REFERENCE = 256
_KEY_DIGITS = 9
_ABSENT_KEY = -9.0
"""Stands for nan in keys, where nan would differ from itself."""


@dataclass(frozen=True)
class SearchSpace:
    """The parameters that are chosen together.

    Points are arrays (m, d) in [0, 1] with a coordinate for each parameter, nan where a point
    lacks the parameter.
    """

    distributions: Mapping[str, BaseDistribution]
    groups: tuple[tuple[str, ...], ...] = ()
    """Parameters that not every configuration has; those of a group occur together."""

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
        """Number of configurations with all parameters; infinite if a parameter is continuous."""
        return math.prod(axis.n_values for axis in self.axes)

    def restrict(self, params: Mapping[str, Any]) -> Configuration | None:
        """The part of a trial's parameters that lies in this space.

        None if a shared parameter is missing, if none of the parameters is there, or if a value
        has no place: a choice that is gone.
        """
        return self._part(params, partly=False)

    def part(self, params: Mapping[str, Any]) -> Configuration | None:
        """As `restrict`, of parameters that need not be all: those of a trial that ended early."""
        return self._part(params, partly=True)

    def _part(self, params: Mapping[str, Any], *, partly: bool) -> Configuration | None:
        known = {}
        for name, axis, is_shared in self._parameters:
            if name in params:
                known[name] = params[name]
                if not axis.has_place(params[name]):
                    return None
            elif is_shared and not partly:
                return None
        return known or None

    @cached_property
    def _parameters(self) -> list[tuple[str, Axis, bool]]:
        """Name, axis and whether every configuration has it, for each parameter."""
        shared = set(self.shared)
        pairs = zip(self.names, self.axes, strict=True)
        return [(name, axis, name in shared) for name, axis in pairs]

    def contains(self, configuration: Configuration) -> bool:
        """Whether all values of a configuration are within their ranges."""
        return all(self.axis(name).contains(value) for name, value in configuration.items())

    def checked(
        self,
        params: Mapping[str, Any] | BaseTrial,
        others: Mapping[str, BaseDistribution] = MappingProxyType({}),
    ) -> Configuration:
        """A user's parameters as a configuration of this space.

        Args:
            params: values by name; of a trial its parameters are taken.
            others: distributions of parameters that may be given but that are no part of the
                space, as they leave no choice.

        Raises:
            InputError: if it is no mapping, a shared parameter is missing, a name is unknown, or
                a value is not admissible.
        """
        given = params.params if isinstance(params, BaseTrial) else params
        if not isinstance(given, Mapping):
            raise InputError(
                "expected the parameters as a dict from names to values, or a trial; got "
                f"{type(given).__name__}."
            )
        known = {**others, **self.distributions}
        for name in given:
            if name not in known:
                raise InputError(
                    f"{name!r} is no parameter of the study.{did_you_mean(name, known)}"
                )
        missing = [name for name in self.shared if name not in given]
        if missing:
            raise InputError(f"expected values for {list(self.shared)}; {missing} are missing.")
        for name, value in given.items():
            axis = Axis(known[name])
            if not axis.admits(value):
                raise InputError(f"{name} must be {axis.values_text}; got {value!r}.")
        return {name: plain(given[name]) for name in self.names if name in given}

    def keys(self, points: np.ndarray) -> list[Key]:
        """Hashable keys of points (m, d), equal for points of the same configuration."""
        rounded = np.where(np.isnan(points), _ABSENT_KEY, np.round(points, _KEY_DIGITS) + 0.0)
        return [row.tobytes() for row in rounded]

    def key(self, configuration: Configuration) -> Key:
        """The key of a configuration."""
        return self.keys(self.to_unit([configuration]))[0]

    def snap(self, points: np.ndarray) -> np.ndarray:
        """Move points (m, d) to the nearest admissible values."""
        pairs = zip(self.axes, points.T, strict=True)
        return np.column_stack([_where_present(axis.snap, units) for axis, units in pairs])

    @cached_property
    def reference(self) -> np.ndarray:
        """Points spread over the space, (256, d), to scale what is computed from points."""
        drawn = qmc.Sobol(len(self.names), scramble=True, rng=0).random(_N_REFERENCE)
        return self.snap(drawn)

    def numbers(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """The values at points (m, d), a column (m,) float64 for each name.

        nan for nominal choices, and where a point lacks the parameter.
        """
        columns = zip(self.names, self.axes, points.T, strict=True)
        return {name: _where_present(axis.numbers, units) for name, axis, units in columns}

    def from_unit(self, points: np.ndarray) -> list[Configuration]:
        """The configurations at points (m, d)."""
        return [
            {
                name: axis.from_unit(float(u))
                for name, axis, u in zip(self.names, self.axes, point, strict=True)
                if not np.isnan(u)
            }
            for point in points
        ]

    def to_unit(self, configurations: Sequence[Configuration]) -> np.ndarray:
        """The points of m configurations, (m, d): the inverse of `from_unit`."""
        points = np.full((len(configurations), len(self.axes)), np.nan)
        for column, (name, axis) in enumerate(zip(self.names, self.axes, strict=True)):
            having = [i for i, c in enumerate(configurations) if name in c]
            points[having, column] = axis.to_units([configurations[i][name] for i in having])
        return points

    @cached_property
    def nominal(self) -> tuple[str, ...]:
        """The names of the parameters whose choices have no order, sorted."""
        pairs = zip(self.names, self.axes, strict=True)
        return tuple(name for name, axis in pairs if axis.is_nominal)

    def features(self, points: np.ndarray) -> np.ndarray:
        """Numeric features for a kernel: (m, columns), [0, 1] inside the ranges.

        A column for each parameter with an order; where a point lacks it, the middle of its range
        counts. Then a column for each group that says whether it is there.

        Args:
            points: (m, d).
        """
        columns = [
            np.where(np.isnan(units), 0.5, units)
            for axis, units in zip(self.axes, points.T, strict=True)
            if not axis.is_nominal
        ]
        for group in self.groups:
            present = ~np.isnan(points[:, self.names.index(group[0])])
            columns.append(present.astype(np.float64))
        return np.column_stack(columns) if columns else np.zeros((len(points), 0))

    def choices(self, points: np.ndarray) -> np.ndarray:
        """Which choice of each nominal parameter points (m, d) have, (m, nominal) float64.

        Choices count from 0; -1 where a point lacks the parameter.
        """
        columns = [
            np.where(np.isnan(units), ABSENT, axis.index(np.nan_to_num(units)))
            for axis, units in zip(self.axes, points.T, strict=True)
            if axis.is_nominal
        ]
        return np.column_stack(columns) if columns else np.zeros((len(points), 0))

    def grid(self) -> np.ndarray:
        """The points of all configurations of a finite space without groups, (m, d)."""
        mesh = np.meshgrid(*(axis.places() for axis in self.axes), indexing="ij")
        return np.stack(mesh, axis=-1).reshape(-1, len(self.axes))


def _where_present(function: Callable[[np.ndarray], np.ndarray], units: np.ndarray) -> np.ndarray:
    """Apply a function to the coordinates that are there; nan elsewhere."""
    present = ~np.isnan(units)
    values = np.full(len(units), np.nan)
    values[present] = function(units[present])
    return values


def suggest(trial: BaseTrial, space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Ask a trial for a value of every distribution, in their order."""
    return {name: _suggest(trial, name, distribution) for name, distribution in space.items()}


def _suggest(trial: BaseTrial, name: str, distribution: BaseDistribution) -> Any:
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
