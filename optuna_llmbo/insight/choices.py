"""Which choices of a nominal parameter the model takes to be alike, and what it expects of each.

Shapes: C choices of one parameter, m of them shown, d parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.trial import FrozenTrial

from optuna_llmbo.insight.belief import Belief
from optuna_llmbo.insight.embedding import principal_axes
from optuna_llmbo.space.axis import Axis
from optuna_llmbo.space.axis import plain
from optuna_llmbo.space.prompt import format_value
from optuna_llmbo.study.trial_facts import TrialFacts


MOST = 200
"""Choices of one parameter that are shown."""
_MOST_PAIRS = 3
_SAME = 1e-9
"""Covariances that differ by less, as a share of the variance, are the same."""


@dataclass(frozen=True)
class Choice:
    """A choice on the map of its parameter."""

    text: str
    """The choice as text, whole."""
    x: float
    y: float
    mean: float
    """What the model expects of it, in the objective's units."""
    n_trials: int
    """Number of trials that have begun with it."""
    is_held: bool
    """Whether the trial has it whose other values are held."""


@dataclass(frozen=True)
class Pair:
    """Two choices that the model takes to be alike."""

    one: str
    other: str
    correlation: float
    """Of their values before any trial, all else equal."""


@dataclass(frozen=True)
class ChoiceMap:
    """Kernel PCA of the process's prior covariance between choices, all else equal.

    Where all pairs of choices are equally alike, no two axes say more than others: the choices
    then lie on a circle.
    """

    name: str
    """The parameter."""
    choices: tuple[Choice, ...]
    """Those that are shown: that of the held trial, then those with trials, then the others, each
    the best expectation first."""
    n_choices: int
    """Number of all choices, C."""
    n_tried: int
    """Number of choices with trials."""
    share: float
    """Share of the variance along the two axes, in (0, 1]."""
    held: int | None
    """Number of the trial whose other values are held: the recommended one; where that lacks the
    parameter, the trial with the best expectation that has it. None: the middle of all ranges."""
    weight: float | None
    """Weight of meaning against equal or not, from 0 to 1; None if no language model reads the
    choices apart from the other parameters."""
    reader: str | None
    """The language model that reads them; None if none does."""
    alike: tuple[Pair, ...]
    """The pairs with the highest correlation, that first; empty without a language model."""

    @property
    def n_left_out(self) -> int:
        """Number of choices that are not shown."""
        return self.n_choices - len(self.choices)


def choices_of(
    belief: Belief, trials: Sequence[TrialFacts], found: Sequence[FrozenTrial]
) -> tuple[ChoiceMap, ...]:
    """Map the choices of each nominal parameter, by name.

    Where a choice leads to another branch of the objective, its expectation is that branch's with
    its own parameters in the middle of their ranges.

    Args:
        belief: the fitted model.
        trials: those that count as tried.
        found: the study's trials, of which those to hold the others at are taken.
    """
    return tuple(
        _map(belief, name, trials, belief.recommended([t for t in found if name in t.params]))
        for name in belief.known.space.nominal
    )


def _map(
    belief: Belief, name: str, trials: Sequence[TrialFacts], held: FrozenTrial | None
) -> ChoiceMap:
    space = belief.known.space
    axis, column = space.axis(name), space.names.index(name)
    places = axis.places()
    point = _point(belief, held)
    counts = _counts(axis, [t.params[name] for t in trials if name in t.params])
    own = None if held is None else int(axis.index(point[[column]])[0])
    asked = _asked(belief, counts, own)
    means = belief.predictions(belief.varied(point, name, places[asked]))[:, 0]
    order = np.lexsort((-belief.sign * means, counts[asked] == 0, asked != own))[:MOST]
    shown, means = asked[order], means[order]
    points = np.tile(point, (len(shown), 1))
    points[:, column] = places[shown]
    covariance = belief.covariance(points)
    spots, share = _spots(covariance)
    texts = [format_value(plain(axis.from_unit(float(place)))) for place in places[shown]]
    weight = belief.weights_of_meaning.get(name)
    return ChoiceMap(
        name=name,
        choices=tuple(
            Choice(text, float(x), float(y), float(mean), int(counts[i]), bool(i == own))
            for text, (x, y), mean, i in zip(texts, spots, means, shown, strict=True)
        ),
        n_choices=len(places),
        n_tried=int((counts > 0).sum()),
        share=share,
        held=None if held is None else held.number,
        weight=weight,
        reader=None if weight is None else str(belief.model.data.options.model),
        alike=() if weight is None else _alike(texts, covariance),
    )


def _point(belief: Belief, held: FrozenTrial | None) -> np.ndarray:
    """The held trial's point (d,), or the middle of all ranges."""
    space = belief.known.space
    if held is None:
        return space.snap(np.full((1, len(space.names)), 0.5))[0]
    configuration = space.restrict(held.params)
    assert configuration is not None
    return space.to_unit([configuration])[0]


def _counts(axis: Axis, values: Sequence[object]) -> np.ndarray:
    """How often each choice is among the values, (C,); those that are gone are not counted."""
    there = axis.to_units([value for value in values if axis.has_place(value)])
    return np.bincount(axis.index(there), minlength=int(axis.n_values))


def _asked(belief: Belief, counts: np.ndarray, own: int | None) -> np.ndarray:
    """Indices of the choices that the model is asked of.

    All of them; where a language model reads whole configurations, which takes long, only as many
    as are shown.
    """
    indices = np.arange(len(counts))
    if belief.model.read is None:
        return indices
    return indices[np.lexsort((indices, counts == 0, indices != own))][:MOST]


def _spots(covariance: np.ndarray) -> tuple[np.ndarray, float]:
    """Coordinates of the choices, (m, 2), and their share of the variance."""
    m = len(covariance)
    apart = covariance[~np.eye(m, dtype=bool)]
    if m <= 2 or np.ptp(apart) > _SAME * covariance.diagonal().max():
        return principal_axes(covariance)
    # any two axes are principal; these show all choices alike
    radius = np.sqrt(2 * (covariance.diagonal().mean() - apart.mean()) / m)
    angles = 2 * np.pi * np.arange(m) / m
    return radius * np.column_stack([np.cos(angles), np.sin(angles)]), 2 / (m - 1)


def _alike(texts: Sequence[str], covariance: np.ndarray) -> tuple[Pair, ...]:
    scale = np.sqrt(covariance.diagonal())
    one, other = np.triu_indices(len(texts), k=1)
    correlation = (covariance / np.outer(scale, scale))[one, other]
    highest = np.argsort(-correlation, kind="stable")[:_MOST_PAIRS]
    return tuple(
        Pair(texts[one[i]], texts[other[i]], min(1.0, float(correlation[i]))) for i in highest
    )
