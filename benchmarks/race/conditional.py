"""A conditional task: three kinds of models on scikit-learn's handwritten digits.

Models are really trained, a tenth of a second each, on 600 digits and validated on the other
1,197. Which parameters exist depends on `family`. The value is the validation error in [0, 1].
Best and middle value are the lowest and the median of 2,000 random configurations.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import BaseTrial

from benchmarks.race import kept
from benchmarks.race.task import Configuration
from benchmarks.race.task import draw
from benchmarks.race.task import Task
from optuna_llmbo.space.search_space import suggest


N_TRAIN = 600
N_DRAWS = 2000

BRANCHES: dict[str, dict[str, BaseDistribution]] = {
    "svm": {
        "C": FloatDistribution(1e-3, 1e3, log=True),
        "gamma": FloatDistribution(1e-6, 1e-1, log=True),
    },
    "knn": {
        "n_neighbors": IntDistribution(1, 100, log=True),
        "weights": CategoricalDistribution(["uniform", "distance"]),
        "p": IntDistribution(1, 2),
    },
    "trees": {
        "max_depth": IntDistribution(1, 30, log=True),
        "min_samples_leaf": IntDistribution(1, 50, log=True),
        "max_features": FloatDistribution(0.02, 1.0, log=True),
    },
}
"""Parameters of each family: SVC, KNeighborsClassifier, ExtraTreesClassifier with 50 trees."""

FAMILY = CategoricalDistribution(list(BRANCHES))


def tasks() -> dict[str, Callable[[], Task]]:
    """Return a factory for the task."""
    return {"conditional": make}


def make() -> Task:
    """Make the task; its default is scikit-learn's SVC, with gamma 1 / (features * variance)."""
    known = kept.read("conditional")
    inputs = _split()[0]
    gamma = 1.0 / (inputs.shape[1] * inputs.var())
    return Task(
        name="conditional",
        family="conditional",
        sentence="validation error of a classifier of handwritten digits, 600 to train on",
        distributions=None,
        suggest=suggest_branch,
        value=error,
        best=known.best,
        middle=known.middle,
        default={"family": "svm", "C": 1.0, "gamma": float(gamma)},
    )


def suggest_branch(trial: BaseTrial) -> Configuration:
    """Suggest the family, then its own parameters."""
    family = suggest(trial, {"family": FAMILY})["family"]
    branch = BRANCHES[family]
    return {"family": family} | suggest(trial, branch)


def error(configuration: Configuration) -> float:
    """Train a model and return its validation error; cached for the process."""
    return _error(tuple(sorted(configuration.items())))


@functools.lru_cache(maxsize=65536)
def _error(items: tuple[tuple[str, Any], ...]) -> float:
    inputs, labels, validation_inputs, validation_labels = _split()
    model = _model(**dict(items)).fit(inputs, labels)
    return float(np.mean(model.predict(validation_inputs) != validation_labels))


def _model(family: str, **options: Any) -> Any:
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    if family == "svm":
        return SVC(**options)
    if family == "knn":
        return KNeighborsClassifier(**options)
    return ExtraTreesClassifier(50, random_state=0, **options)


@functools.cache
def _split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Split inputs and labels for training and validation, stratified by class."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    train, validation, train_labels, validation_labels = train_test_split(
        digits.data, digits.target, train_size=N_TRAIN, stratify=digits.target, random_state=0
    )
    return train, train_labels, validation, validation_labels


def search() -> kept.Known:
    """Find best and middle value of random configurations, the family drawn first."""
    families = [row["family"] for row in draw({"family": FAMILY}, N_DRAWS, seed=0)]
    drawn = {
        family: iter(draw(branch, N_DRAWS, seed=i))
        for i, (family, branch) in enumerate(BRANCHES.items(), 1)
    }
    values = [error({"family": family} | next(drawn[family])) for family in families]
    return kept.Known(best=min(values), middle=float(np.median(values)))
