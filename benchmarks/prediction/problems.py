"""Tasks of the race as prediction problems: configurations whose values are all known."""

from __future__ import annotations

from dataclasses import dataclass
import functools
from functools import cached_property

import numpy as np
from scipy.stats import qmc

from benchmarks.race import tasks
from benchmarks.race.task import Task
from optuna_llmbo.errors import InputError
from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.knowledge import load_knowledge
from optuna_llmbo.space.numeric_view import NumericView
from optuna_llmbo.space.prompt import Prompt
from optuna_llmbo.space.search_space import Configuration
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.surrogate.choices import Choices
from optuna_llmbo.surrogate.choices import Inputs


N_CONFIGURATIONS = 256

_DIGITS = 12
"""Significant digits of a value: means of the same numbers in another order are equal."""


@dataclass(frozen=True)
class Problem:
    """A task's configurations, the same for all tasks that share a search space."""

    task: Task
    space: SearchSpace

    @cached_property
    def points(self) -> np.ndarray:
        """The configurations as points, (256, d): a scrambled Sobol sequence."""
        points = qmc.Sobol(len(self.space.names), scramble=True, rng=1).random(N_CONFIGURATIONS)
        return self.space.snap(points)

    @cached_property
    def configurations(self) -> list[Configuration]:
        """256 of them."""
        return self.space.from_unit(self.points)

    @cached_property
    def values(self) -> np.ndarray:
        """(256,), larger is better."""
        return np.round([-self.task.value(c) for c in self.configurations], _DIGITS)

    @cached_property
    def prompt(self) -> Prompt:
        """Prompt that writes the configurations, without a description of the task."""
        return Prompt(self.space, self._knowledge)

    def numeric(self, derived: bool) -> np.ndarray:
        """Compute the numeric view, (256, columns): numbers, then which choices."""
        return self._view(derived)(self.points)

    def inputs(self, derived: bool) -> Inputs:
        """Describe the columns of the numeric view; choices are equal or different."""
        sizes = (int(axis.n_values) for axis in self.space.axes if axis.is_nominal)
        return Inputs(self._view(derived).n_numbers, tuple(map(Choices, sizes)))

    def _view(self, derived: bool) -> NumericView:
        return NumericView(self.space, self._knowledge if derived else Knowledge())

    @cached_property
    def _knowledge(self) -> Knowledge:
        return load_knowledge("auto").relevant(self.space.names)


@functools.cache
def load(task_name: str) -> Problem:
    """Load a task as a problem.

    Raises:
        InputError: if the task's search space is not fixed.
    """
    task = tasks.load(task_name)
    if task.distributions is None:
        raise InputError(f"{task_name} has no fixed search space to draw configurations from.")
    return Problem(task, SearchSpace(task.distributions))


def split(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split into indices of n observed configurations and of the others.

    With the same seed, fewer observed configurations are a subset of more.
    """
    order = np.random.default_rng(seed).permutation(N_CONFIGURATIONS)
    return order[:n], np.sort(order[n:])
