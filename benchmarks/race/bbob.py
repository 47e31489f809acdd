"""Functions of the noiseless BBOB suite, computed by the package ioh.

Hansen, Finck, Ros and Auger 2009, Real-Parameter Black-Box Optimization Benchmarking: Noiseless
Functions Definitions (INRIA report RR-6829). The instance fixes where the optimum lies, the
rotations and the value of the optimum.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from optuna.distributions import FloatDistribution

from benchmarks.race.task import draw
from benchmarks.race.task import N_DRAWS
from benchmarks.race.task import suggest_all
from benchmarks.race.task import Task
from optuna_llmbo.errors import InputError


FUNCTIONS = {
    "sphere": 1,
    "ellipsoid": 2,
    "attractive-sector": 6,
    "rosenbrock": 9,  # rotated
    "sharp-ridge": 13,
    "different-powers": 14,
    "rastrigin": 15,  # rotated
    "schaffers": 17,  # F7, condition 10
}
"""Function names -> numbers in the suite."""

DIMENSIONS = (2, 5, 10)
INSTANCE = 1


def tasks() -> dict[str, Callable[[], Task]]:
    """Return a factory for each function and dimension."""
    return {
        task_name(function, dimension): _factory(function, dimension)
        for function in FUNCTIONS
        for dimension in DIMENSIONS
    }


def task_name(function: str, dimension: int) -> str:
    """Return a task's name, such as bbob-rosenbrock-5d."""
    return f"bbob-{function}-{dimension}d"


def _factory(function: str, dimension: int) -> Callable[[], Task]:
    return lambda: make(function, dimension)


def make(function: str, dimension: int) -> Task:
    """Make the task of one function in one dimension; the default is the origin.

    Raises:
        InputError: if the package ioh is not installed.
    """
    if find_spec("ioh") is None:
        raise InputError(
            "the BBOB tasks need the package ioh: install it with `pip install --no-deps ioh`."
        )
    import ioh

    problem = ioh.get_problem(
        FUNCTIONS[function], INSTANCE, dimension, problem_class=ioh.ProblemClass.BBOB
    )
    names = [f"x{i}" for i in range(dimension)]
    space = {name: FloatDistribution(-5.0, 5.0) for name in names}
    random = [problem([c[name] for name in names]) for c in draw(space, N_DRAWS, seed=0)]
    return Task(
        name=task_name(function, dimension),
        family="bbob",
        sentence=f"an unknown smooth or rugged function of {dimension} real numbers",
        distributions=space,
        suggest=suggest_all(space),
        value=lambda configuration: float(problem([configuration[name] for name in names])),
        best=float(problem.optimum.y),
        middle=float(np.median(random)),
        default=dict.fromkeys(names, 0.0),
    )
