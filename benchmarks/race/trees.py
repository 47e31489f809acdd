"""Surrogates of tables that are no grids: extremely randomized trees over a search space."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from benchmarks.race.task import Configuration
from benchmarks.race.task import Distributions


N_TREES = 100


def encode(space: Distributions, configurations: Iterable[Configuration]) -> np.ndarray:
    """Encode configurations as features, (n, k): logarithms if the range is, choices one-hot."""
    rows = list(configurations)
    columns: list[np.ndarray] = []
    for name, distribution in space.items():
        values = [row[name] for row in rows]
        if isinstance(distribution, CategoricalDistribution):
            columns += [np.array([v == c for v in values], float) for c in distribution.choices]
        else:
            assert isinstance(distribution, FloatDistribution | IntDistribution)
            numbers = np.array(values, float)
            columns.append(np.log(numbers) if distribution.log else numbers)
    return np.stack(columns, axis=1)


def regression(features: np.ndarray, values: np.ndarray) -> Any:
    """Fit a regressor, which reproduces the values at their own configurations."""
    from sklearn.ensemble import ExtraTreesRegressor

    return ExtraTreesRegressor(N_TREES, random_state=0).fit(features, values)


def classification(features: np.ndarray, labels: np.ndarray) -> Any:
    """Fit a classifier, which reproduces the labels at their own configurations."""
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(N_TREES, random_state=0).fit(features, labels)
