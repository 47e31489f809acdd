"""Tables of choices as prediction problems: rows whose values are all known.

Shapes: n observed rows, p numbers, c nominal parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import functools
from functools import cached_property

import numpy as np

from benchmarks.race import tasks
from benchmarks.race.task import Task
from optuna_llmbo.errors import InputError
from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.knowledge import load_knowledge
from optuna_llmbo.space.choice_text import ChoiceTexts
from optuna_llmbo.space.numeric_view import NumericView
from optuna_llmbo.space.search_space import SearchSpace


N_PREDICTED = 500
"""Most rows that are predicted."""

_DIGITS = 12
"""Significant digits of a value: means of the same numbers in another order are equal."""


@dataclass(frozen=True)
class Problem:
    """A task that is made of a table."""

    task: Task
    space: SearchSpace

    def features(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Compute the numeric view of rows, (rows, p + c): numbers, then which choices."""
        return self._view(self.space.to_unit([self.task.listed[row] for row in rows]))

    def values(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the values of rows, larger is better."""
        return np.round([-self.task.value(self.task.listed[row]) for row in rows], _DIGITS)

    @property
    def n_numbers(self) -> int:
        """Number of numeric columns, p."""
        return self._view.n_numbers

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of choices of each nominal parameter."""
        return tuple(int(axis.n_values) for axis in self.space.axes if axis.is_nominal)

    @cached_property
    def texts(self) -> ChoiceTexts:
        """Writes the choices as the sampler does that is told nothing of the task."""
        return ChoiceTexts(self.space, self._knowledge)

    @cached_property
    def _view(self) -> NumericView:
        return NumericView(self.space, self._knowledge)

    @cached_property
    def _knowledge(self) -> Knowledge:
        return load_knowledge("auto").relevant(self.space.names)

    def split(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw indices of n observed rows, and of at most 500 others.

        With the same seed, fewer observed rows are a subset of more.

        Raises:
            InputError: if the table has too few rows.
        """
        n_rows = len(self.task.listed)
        if not 1 < n < n_rows - 1:
            raise InputError(
                f"{self.task.name} has {n_rows} rows: from 2 to {n_rows - 2} of them can be "
                f"observed; got {n}."
            )
        order = np.random.default_rng(seed).permutation(n_rows)
        return order[:n], order[n : n + N_PREDICTED]


@functools.cache
def load(task_name: str) -> Problem:
    """Load a task as a problem.

    Raises:
        InputError: if the task is not made of a table.
    """
    task = tasks.load(task_name)
    if task.distributions is None or not task.listed:
        raise InputError(f"{task_name} is not made of a table: choose tasks of `choices`.")
    return Problem(task, SearchSpace(task.distributions))
