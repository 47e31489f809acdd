"""The view of configurations as numbers and choices, and the quantities derived from them.

Shapes: m points, d parameters, p numbers, c nominal parameters.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.space.search_space import SearchSpace


class NumericView:
    """Features for the kernel: numbers in [0, 1], derived quantities, then which choices.

    A derived quantity is scaled to its range over the space, on a log scale if it is positive
    everywhere (products and ratios of hyperparameters are). One that is constant, or not finite
    everywhere, says nothing and is left out.

    Args:
        space: the parameters that are chosen together.
        knowledge: the packs that apply to it.
    """

    def __init__(self, space: SearchSpace, knowledge: Knowledge) -> None:
        self._space = space
        self._knowledge = knowledge

    @cached_property
    def derived_names(self) -> tuple[str, ...]:
        """Names of the derived quantities that have a column, in order."""
        return tuple(self._ranges)

    @cached_property
    def n_numbers(self) -> int:
        """Number of numeric features, p: the hyperparameters' first, then the derived ones."""
        nowhere = np.full((1, len(self._space.names)), np.nan)
        return self._space.features(nowhere).shape[1] + len(self._ranges)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """The features of points, (m, p + c) float64: numbers roughly in [0, 1], then choices.

        Args:
            points: (m, d), from `SearchSpace.to_unit`.
        """
        derived = self._derive(points) if self._ranges else {}
        columns = [
            (_scale(derived[name], log) - low) / (high - low)
            for name, (log, low, high) in self._ranges.items()
        ]
        filled = (np.nan_to_num(column, nan=0.5)[:, None] for column in columns)
        return np.hstack([self._space.features(points), *filled, self._space.choices(points)])

    @cached_property
    def _ranges(self) -> dict[str, tuple[bool, float, float]]:
        """For each derived quantity with a column: whether on a log scale, lowest, highest."""
        ranges = {}
        for name, values in self._derive(self._space.reference).items():
            if not np.isfinite(values).all():
                continue
            log = bool((values > 0).all())
            scaled = _scale(values, log)
            low, high = float(scaled.min()), float(scaled.max())
            if high > low:
                ranges[name] = (log, low, high)
        return ranges

    def _derive(self, points: np.ndarray) -> dict[str, np.ndarray]:
        return self._knowledge.derive_columns(self._space.numbers(points))


def _scale(values: np.ndarray, log: bool) -> np.ndarray:
    if not log:
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(np.where(values > 0, values, np.nan))
