"""Which parameters a configuration has: the branches of a conditional objective.

An objective that suggests `momentum` only if the optimizer is SGD says so nowhere. Its finished
trials show which parameters go together, the *patterns*; a decision tree predicts the pattern of a
new configuration from its values.

Shapes: n finished trials, m points, d parameters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_llmbo.space.search_space import SearchSpace


MAX_PATTERNS = 16
"""Only the most frequent patterns are kept: an objective with more probably makes up names."""


@dataclass(frozen=True)
class Branches:
    """A search space and the patterns of parameters that its configurations can have."""

    space: SearchSpace
    patterns: np.ndarray
    """(patterns, d) bool: which parameters each pattern has; the most frequent first."""
    observed: np.ndarray
    """(n, d) points of finished trials, nan where a parameter is absent."""

    def spread(self, points: np.ndarray) -> np.ndarray:
        """Set the parameters that a point's other values do not lead to, to nan.

        Args:
            points: (m, d) at admissible values, one for every parameter.
        """
        return np.where(self._expected(points), points, np.nan)

    def is_consistent(self, points: np.ndarray) -> np.ndarray:
        """Whether points have exactly the parameters that their values lead to, (m,) bool."""
        agrees: np.ndarray = (~np.isnan(points) == self._expected(points)).all(axis=1)
        return agrees

    def expected_names(self, point: np.ndarray) -> list[str]:
        """The parameters that the values of a point (d,) lead to."""
        names = zip(self.space.names, self._expected(point[None])[0], strict=True)
        return [name for name, is_expected in names if is_expected]

    def completed(self, points: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        """Give points the parameters that they lack but that their values lead to.

        A point that lacks any becomes n points with random values of these; others stay one.

        Args:
            points: (m, d), nan where a point lacks a parameter.
            n: how many values to draw.
            rng: source of all randomness.

        Returns:
            (m to m * n, d), in order.
        """
        repeated = np.repeat(points, n, axis=0)
        drawn = np.where(np.isnan(repeated), self.space.snap(rng.random(repeated.shape)), repeated)
        filled = np.where(np.isnan(repeated) & ~self._expected(drawn), np.nan, drawn)
        is_first = np.arange(len(repeated)) % n == 0
        return filled[is_first | (np.isnan(repeated) & ~np.isnan(filled)).any(axis=1)]

    def with_all(self, names: Sequence[str]) -> Branches:
        """Keep only the patterns that have these parameters; all of them if none has."""
        having = self.patterns[:, [self.space.names.index(name) for name in names]].all(axis=1)
        return Branches(self.space, self.patterns[having], self.observed) if having.any() else self

    def _expected(self, points: np.ndarray) -> np.ndarray:
        return self.patterns[self._tree.predict(points)]

    @cached_property
    def _tree(self) -> _Tree:
        present = ~np.isnan(self.observed)
        matches = (present[:, None, :] == self.patterns[None]).all(axis=2)
        known = matches.any(axis=1)
        kinds = [
            isinstance(axis.distribution, CategoricalDistribution) for axis in self.space.axes
        ]
        return _grow(self.observed[known], matches[known].argmax(axis=1), np.array(kinds))


@dataclass(frozen=True)
class _Tree:
    """A decision tree over points, in which values may be absent."""

    label: int
    """The most frequent label at this node."""
    column: int = -1
    """The column it splits by; -1 for a leaf."""
    places: tuple[float, ...] = ()
    """Places of the choices that lead to a branch each, or one threshold."""
    branches: tuple[_Tree, ...] = ()
    """One for each choice; or below the threshold, and above it."""
    is_choice: bool = False

    def predict(self, points: np.ndarray) -> np.ndarray:
        """Labels of points (m, d), (m,) int."""
        labels = np.full(len(points), self.label)
        if self.branches:
            for branch, rows in zip(
                self.branches, self._rows(points[:, self.column]), strict=True
            ):
                labels[rows] = branch.predict(points[rows])
        return labels

    def _rows(self, values: np.ndarray) -> list[np.ndarray]:
        return _parts(values, self.places, self.is_choice)


def _grow(points: np.ndarray, labels: np.ndarray, is_choice: np.ndarray) -> _Tree:
    """Grow a tree until a leaf has one label, or nothing tells its labels apart.

    It may only split by a parameter that all points at a node have: what the objective has
    suggested by then. Otherwise it would learn that trials with a momentum have a momentum.

    Args:
        points: (n, d), nan where a parameter is absent.
        labels: (n,) int.
        is_choice: (d,) bool: columns of which each value leads to a branch of its own.
    """
    label = int(np.bincount(labels).argmax()) if len(labels) else 0
    if len(np.unique(labels)) < 2:
        return _Tree(label)
    best, found = 0.0, None
    known = np.flatnonzero(~np.isnan(points).any(axis=0))
    for column in sorted(map(int, known), key=lambda c: not is_choice[c]):  # choices win a tie
        for places in _splits(points[:, column], bool(is_choice[column])):
            rows = _parts(points[:, column], places, bool(is_choice[column]))
            gain = _impurity(labels) - sum(_impurity(labels[some]) for some in rows)
            if gain > best + 1e-9:
                best, found = gain, (column, places, rows)
    if found is None:
        return _Tree(label)
    column, places, rows = found
    branches = tuple(_grow(points[some], labels[some], is_choice) for some in rows)
    return _Tree(label, column, places, branches, bool(is_choice[column]))


def _splits(values: np.ndarray, is_choice: bool) -> Iterator[tuple[float, ...]]:
    different = np.unique(values)
    if is_choice and len(different) > 1:
        yield tuple(different)
    elif not is_choice:
        yield from ((float(middle),) for middle in (different[1:] + different[:-1]) / 2)


def _parts(values: np.ndarray, places: Sequence[float], is_choice: bool) -> list[np.ndarray]:
    if is_choice:
        return [np.abs(values - place) < 1e-9 for place in places]
    below = values < places[0]
    return [below, ~below]


def _impurity(labels: np.ndarray) -> float:
    """Gini impurity times the number of labels."""
    n = len(labels)
    return n - float((np.bincount(labels) ** 2).sum()) / n if n else 0.0


def informative(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials with a value: complete ones, and pruned ones that reported."""
    return [
        trial
        for trial in trials
        if trial.state == TrialState.COMPLETE
        or (trial.state == TrialState.PRUNED and trial.last_step is not None)
    ]


def latest_distributions(trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """Each parameter's distribution in the last trial that has it, if it leaves a choice."""
    latest = {name: d for trial in trials for name, d in trial.distributions.items()}
    return {name: d for name, d in sorted(latest.items()) if not d.single()}


def shared_distributions(trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """The part of `latest_distributions` that all trials have."""
    return {
        name: distribution
        for name, distribution in latest_distributions(trials).items()
        if all(name in trial.params for trial in trials)
    }


def read_branches(
    trials: Sequence[FrozenTrial],
    distributions: Mapping[str, BaseDistribution],
    always: Collection[str] = (),
) -> Branches:
    """Read the branches of a study's objective from its trials.

    Args:
        trials: finished trials.
        distributions: the parameters; others that the trials have are ignored.
        always: parameters that every configuration must have, whatever the trials have.
    """
    names = sorted(distributions)
    known = [trial for trial in trials if any(name in trial.params for name in names)]
    counts = Counter(
        tuple(name in always or name in trial.params for name in names) for trial in known
    )
    frequent = [pattern for pattern, _ in counts.most_common(MAX_PATTERNS)]
    patterns = np.array(frequent or [(True,) * len(names)])
    groups: dict[tuple[bool, ...], list[str]] = {}
    for name, column in zip(names, patterns.T, strict=True):
        if not column.all():
            groups.setdefault(tuple(column), []).append(name)
    space = SearchSpace(distributions, tuple(tuple(group) for group in groups.values()))
    usable = [c for trial in known if (c := space.restrict(trial.params)) is not None]
    return Branches(space, patterns, space.to_unit(usable))
