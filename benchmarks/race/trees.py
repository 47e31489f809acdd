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


class Forest:
    """A fitted forest that predicts a few rows fast.

    For the single rows that a search asks about, scikit-learn's checks and its start of workers
    take ten times as long as the trees.
    """

    def __init__(self, forest: Any) -> None:
        self._forest = forest

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the values, or the most probable labels, (n,)."""
        rows = np.ascontiguousarray(features, dtype=np.float32)
        each = [tree.tree_.predict(rows) for tree in self._forest.estimators_]
        if not hasattr(self._forest, "classes_"):
            return np.asarray(np.mean(each, axis=0)[:, 0])
        shares = [leaf / leaf.sum(axis=1, keepdims=True) for leaf in each]
        return np.asarray(self._forest.classes_[np.mean(shares, axis=0).argmax(axis=1)])


def regression(features: np.ndarray, values: np.ndarray) -> Forest:
    """Fit a regressor, which reproduces the values at their own configurations."""
    from sklearn.ensemble import ExtraTreesRegressor

    return Forest(ExtraTreesRegressor(N_TREES, random_state=0).fit(features, values))


def classification(features: np.ndarray, labels: np.ndarray) -> Forest:
    """Fit a classifier, which reproduces the labels at their own configurations."""
    from sklearn.ensemble import ExtraTreesClassifier

    return Forest(ExtraTreesClassifier(N_TREES, random_state=0).fit(features, labels))
