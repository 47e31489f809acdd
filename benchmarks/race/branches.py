"""Conditional tasks for tuning alone: kinds of models on small data, and drawn functions.

Which parameters exist depends on the values of others: on a nominal choice, on one within a
branch, on the number of layers. The models are scikit-learn's, cross-validated on two of its
small data sets; a function is a draw of a Gaussian process for each branch, as in `draws`, with a
level of its own. The best value is the lowest of a search in all branches; the middle is the
median of random configurations.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
import functools
from typing import Any
import warnings

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
from optuna_llmbo.space.axis import Axis
from optuna_llmbo.space.search_space import suggest


N_SEARCH = 1024
N_ROUNDS = 12
N_WAVES = 512
_N_KEPT = 8
_N_MOVED = 4
_UNIT = FloatDistribution(0.0, 1.0)


@dataclass(frozen=True)
class Space:
    """A search space as a tree: parameters, and the spaces that their values lead to."""

    own: Mapping[str, BaseDistribution]
    then: Mapping[str, Mapping[Any, Space]]
    """By the name of one of the parameters, then by its value: the parameters that follow."""

    def suggest(self, trial: BaseTrial) -> dict[str, Any]:
        """Suggest the parameters, then those that follow."""
        chosen = suggest(trial, self.own)
        for name, spaces in self.then.items():
            if chosen[name] in spaces:
                chosen |= spaces[chosen[name]].suggest(trial)
        return chosen

    def draw(self, n: int, seed: int) -> list[dict[str, Any]]:
        """Draw n configurations as random search does: those that lead to others first."""
        rows = draw(self.own, n, seed)
        for i, (name, spaces) in enumerate(self.then.items(), 1):
            for j, (value, space) in enumerate(spaces.items(), 1):
                for row, more in zip(rows, space.draw(n, seed + 100 * i + j), strict=True):
                    if row[name] == value:
                        row |= more
        return rows

    def deciding(self) -> set[str]:
        """The names of the parameters that others depend on."""
        below = [space.deciding() for spaces in self.then.values() for space in spaces.values()]
        return set(self.then).union(*below)

    def distributions(self) -> dict[str, BaseDistribution]:
        """The distributions of all parameters."""
        all_of_them = dict(self.own)
        for spaces in self.then.values():
            for space in spaces.values():
                all_of_them |= space.distributions()
        return all_of_them


def _leaf(**own: BaseDistribution) -> Space:
    return Space(own, {})


def _fork(name: str, spaces: Mapping[Any, Space], **own: BaseDistribution) -> Space:
    """A nominal choice, each with parameters of its own, and parameters that all have."""
    return Space({name: CategoricalDistribution(list(spaces)), **own}, {name: spaces})


_TREES = _leaf(
    max_depth=IntDistribution(1, 20, log=True),
    min_samples_leaf=IntDistribution(1, 50, log=True),
    max_features=FloatDistribution(0.05, 1.0, log=True),
)

SPACES = {
    "cancer": _fork(
        "family",
        {
            "svm": _leaf(
                C=FloatDistribution(1e-3, 1e3, log=True),
                gamma=FloatDistribution(1e-6, 1e1, log=True),
            ),
            "linear": _leaf(strength=FloatDistribution(1e-4, 1e4, log=True)),
            "knn": _leaf(
                n_neighbors=IntDistribution(1, 100, log=True),
                weights=CategoricalDistribution(["uniform", "distance"]),
                p=IntDistribution(1, 2),
            ),
            "trees": _TREES,
        },
    ),
    "diabetes": _fork(
        "family",
        {
            "svr": _fork(
                "kernel",
                {
                    "rbf": _leaf(gamma=FloatDistribution(1e-5, 1e1, log=True)),
                    "poly": _leaf(degree=IntDistribution(2, 4), coef0=FloatDistribution(0, 2)),
                },
                C=FloatDistribution(1e-2, 1e4, log=True),
                epsilon=FloatDistribution(1e-1, 1e2, log=True),
            ),
            "ridge": _leaf(alpha=FloatDistribution(1e-3, 1e5, log=True)),
            "knn": _leaf(
                n_neighbors=IntDistribution(1, 100, log=True),
                weights=CategoricalDistribution(["uniform", "distance"]),
            ),
            "trees": _TREES,
        },
    ),
    "unequal": _fork(
        "branch",
        {
            "a": _leaf(a0=_UNIT),
            "b": _leaf(b0=_UNIT, b1=_UNIT),
            "c": _leaf(c0=_UNIT, c1=_UNIT, c2=_UNIT, c3=_UNIT),
        },
    ),
    "narrow": _fork(
        "branch",
        {
            "a": _leaf(a0=_UNIT, a1=_UNIT, a2=_UNIT),
            "b": _leaf(b0=_UNIT, b1=_UNIT),
            "c": _leaf(c0=_UNIT, c1=_UNIT, c2=_UNIT),
            "d": _leaf(d0=_UNIT),
        },
        shared=_UNIT,
    ),
    "nested": _fork(
        "branch",
        {
            "a": _fork(
                "a_kind",
                {"x": _leaf(ax0=_UNIT, ax1=_UNIT), "y": _leaf(ay0=_UNIT)},
                a0=_UNIT,
            ),
            "b": _leaf(b0=_UNIT, b1=_UNIT),
        },
        s0=_UNIT,
        s1=_UNIT,
    ),
    "layers": Space(
        {"s0": _UNIT, "s1": _UNIT, "layers": IntDistribution(1, 3)},
        {
            "layers": {
                1: _leaf(l1=_UNIT),
                2: _leaf(l1=_UNIT, l2=_UNIT),
                3: _leaf(l1=_UNIT, l2=_UNIT, l3=_UNIT),
            }
        },
    ),
}
"""The search spaces by kind."""

_LEVELS = {
    "unequal": {"a": 0.6, "b": 0.3, "c": 0.0},
    "narrow": {"a": 0.8, "b": 0.4, "c": 0.8, "d": -0.4},
    "nested": {"a": 0.0, "b": 0.5},
}
"""What is added in each branch of a drawn function, which is about as far from 0 as 1."""

_LENGTHSCALES = {"unequal": 0.4, "narrow": 0.3, "nested": 0.5, "layers": 0.5}
_N_DRAWN = 2
"""Functions drawn of each kind."""

KINDS = {
    **{name: name for name in SPACES if name not in _LENGTHSCALES},
    **{f"{name}-{i}": name for name in _LENGTHSCALES for i in range(1, _N_DRAWN + 1)},
}
"""The kind of each task, which has its search space; both without the family."""


def tasks() -> dict[str, Callable[[], Task]]:
    """Return a factory for each task."""
    return {f"branches-{name}": functools.partial(make, name) for name in KINDS}


def make(name: str) -> Task:
    """Make a task; its default is a middling configuration, the median of 17 random ones."""
    known, space = kept.read(f"branches-{name}"), SPACES[KINDS[name]]
    value = value_of(name)
    return Task(
        name=f"branches-{name}",
        family="branches",
        sentence="a kind of model or function, chosen together with what it depends on",
        distributions=None,
        suggest=space.suggest,
        value=value,
        best=known.best,
        middle=known.middle,
        default=sorted(space.draw(17, seed=1), key=value)[8],
    )


@functools.cache
def value_of(name: str) -> Callable[[Configuration], float]:
    """Return the function of a task: the value of a configuration; lower is better."""
    if name == "cancer":
        return _cached(_cancer_error)
    if name == "diabetes":
        return _cached(_diabetes_error)
    return functools.partial(_drawn, name)


def _drawn(name: str, configuration: Configuration) -> float:
    """A draw for each branch: its parameters' numbers, in the order of the names."""
    choices = [f"{k}={v}" for k, v in sorted(configuration.items()) if not isinstance(v, float)]
    numbers = [v for _, v in sorted(configuration.items()) if isinstance(v, float)]
    frequencies, phases, weights = _waves(name, " ".join(choices), len(numbers))
    level = _LEVELS.get(KINDS[name], {}).get(configuration.get("branch", ""), 0.0)
    return level + float(np.cos(frequencies @ np.array(numbers) + phases) @ weights)


@functools.cache
def _waves(name: str, branch: str, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frequencies (waves, d), phases and weights of a draw with a squared exponential kernel."""
    rng = np.random.default_rng([d, *name.encode(), *branch.encode()])
    frequencies = rng.normal(size=(N_WAVES, d)) / _LENGTHSCALES[KINDS[name]]
    weights = rng.normal(size=N_WAVES) * np.sqrt(2 / N_WAVES)
    return frequencies, rng.uniform(0, 2 * np.pi, N_WAVES), weights


def _cached(function: Callable[..., float]) -> Callable[[Configuration], float]:
    cached = functools.lru_cache(maxsize=65536)(lambda items: function(**dict(items)))
    return lambda configuration: cached(tuple(sorted(configuration.items())))


def _cancer_error(family: str, **options: Any) -> float:
    """Cross-validated share of 569 tumours that are classified wrongly."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.linear_model import RidgeClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    if family == "svm":
        model = SVC(**options)
    elif family == "linear":
        model = RidgeClassifier(alpha=options["strength"])
    elif family == "knn":
        model = KNeighborsClassifier(**options)
    else:
        model = ExtraTreesClassifier(10, random_state=0, **options)
    inputs, labels = _scaled("breast_cancer")
    return float(np.mean(_predicted(model, inputs, labels) != labels))


def _diabetes_error(family: str, **options: Any) -> float:
    """Cross-validated root mean squared error of the progression of 442 patients."""
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.linear_model import Ridge
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.svm import SVR

    if family == "svr":
        model = SVR(max_iter=20000, **options)
    elif family == "ridge":
        model = Ridge(**options)
    elif family == "knn":
        model = KNeighborsRegressor(**options)
    else:
        model = ExtraTreesRegressor(10, random_state=0, **options)
    inputs, targets = _scaled("diabetes")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Solver terminated early")
        predicted = _predicted(model, inputs, targets)
    return float(np.sqrt(np.mean((predicted - targets) ** 2)))


def _predicted(model: Any, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Predictions for each third, by models of the other two."""
    folds = np.arange(len(targets)) % 3
    predicted = np.zeros(len(targets))
    for fold in range(3):
        here = folds == fold
        predicted[here] = model.fit(inputs[~here], targets[~here]).predict(inputs[here])
    return predicted


@functools.cache
def _scaled(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Standardized inputs and targets, in random order."""
    import sklearn.datasets

    data = getattr(sklearn.datasets, f"load_{name}")()
    order = np.random.default_rng(0).permutation(len(data.target))
    inputs = data.data[order]
    return (inputs - inputs.mean(axis=0)) / inputs.std(axis=0), data.target[order]


def search(name: str) -> kept.Known:
    """Find the best value by a search that closes in, in each branch, and the middle."""
    name = name.removeprefix("branches-")
    space, value = SPACES[KINDS[name]], value_of(name)
    rows = space.draw(N_SEARCH, seed=0)
    deciding = space.deciding()
    branches: dict[tuple[Any, ...], list[Configuration]] = {}
    for row in rows:
        branches.setdefault(tuple(row.get(key) for key in sorted(deciding)), []).append(row)
    free = {key: Axis(d) for key, d in space.distributions().items() if key not in deciding}
    best = min(_lowest(found, value, free) for found in branches.values())
    return kept.Known(best=best, middle=float(np.median([value(row) for row in rows])))


def _lowest(
    found: list[Configuration],
    value: Callable[[Configuration], float],
    free: Mapping[str, Axis],
) -> float:
    """The lowest value near configurations of one branch."""
    rng = np.random.default_rng(0)
    for i in range(N_ROUNDS):
        found = sorted(found, key=value)[:_N_KEPT]
        step = 0.2 * 0.7**i
        found += [
            {
                name: _moved(free[name], chosen, step, rng) if name in free else chosen
                for name, chosen in one.items()
            }
            for one in found
            for _ in range(_N_MOVED)
        ]
    return min(map(value, found))


def _moved(axis: Axis, value: Any, step: float, rng: np.random.Generator) -> Any:
    """A value near another one; a nominal choice now and then anew."""
    if axis.is_nominal:
        return axis.from_unit(rng.random()) if rng.random() < 0.1 else value
    return axis.from_unit(float(np.clip(axis.to_unit(value) + rng.normal() * step, 0, 1)))
