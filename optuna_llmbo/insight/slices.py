"""What the model says about each hyperparameter, with the others at recommended values."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import Any
from typing import Literal

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial

from optuna_llmbo.insight.belief import Belief
from optuna_llmbo.space.axis import Axis
from optuna_llmbo.study.trial_facts import TrialFacts


N_PLACES = 33
"""Points along a parameter with more values than this."""

Kind = Literal["float", "int", "choice"]


@dataclass(frozen=True)
class Slice:
    """One hyperparameter."""

    name: str
    kind: Kind
    log: bool
    """Whether its axis is logarithmic."""
    values: tuple[Any, ...]
    """m of its values, ascending."""
    mean: tuple[float, ...]
    """Expected value at each, in the objective's units."""
    low: tuple[float, ...]
    """Lower end of the central 95% interval of the noise-free value."""
    high: tuple[float, ...]
    """Its upper end."""
    held: Any
    """The recommended configuration's own value."""
    trials: tuple[TrialFacts, ...]
    """Trials with the parameter and a finite value; their other parameters differ."""


@dataclass(frozen=True)
class Slices:
    """Slices along all hyperparameters of the recommended configuration, by name."""

    number: int
    """Number of the recommended trial."""
    params: Mapping[str, Any]
    """Its parameters, at which the others are held."""
    slices: tuple[Slice, ...]


def slices_of(belief: Belief, trials: Sequence[TrialFacts], recommended: FrozenTrial) -> Slices:
    """Slice the model along each parameter of the recommended trial that leaves a choice.

    Where a value leads to another branch of the objective, that branch's parameters are in the
    middle of their ranges, and those of the old branch are absent.

    Args:
        belief: the fitted model.
        trials: shown as points.
        recommended: from `Belief.recommended`.
    """
    held = belief.known.space.restrict(recommended.params)
    assert held is not None
    found = tuple(_slice(belief, trials, dict(held), name) for name in sorted(held))
    return Slices(recommended.number, dict(held), found)


def _slice(belief: Belief, trials: Sequence[TrialFacts], held: dict[str, Any], name: str) -> Slice:
    space = belief.known.space
    axis = space.axis(name)
    places = _places(axis)
    (point,) = space.to_unit([held])
    mean, low, high = belief.predictions(belief.varied(point, name, places)).T
    distribution = axis.distribution
    return Slice(
        name=name,
        kind=_kind(axis),
        log=bool(getattr(distribution, "log", False)),
        values=tuple(axis.from_unit(float(place)) for place in places),
        mean=tuple(map(float, mean)),
        low=tuple(map(float, low)),
        high=tuple(map(float, high)),
        held=held[name],
        trials=tuple(
            t
            for t in trials
            if name in t.params and t.value is not None and math.isfinite(t.value)
        ),
    )


def _places(axis: Axis) -> np.ndarray:
    if axis.n_values <= N_PLACES:
        return axis.places()
    return np.unique(axis.snap(np.linspace(0.0, 1.0, N_PLACES)))


def _kind(axis: Axis) -> Kind:
    if isinstance(axis.distribution, CategoricalDistribution):
        return "choice"
    return "int" if isinstance(axis.distribution, IntDistribution) else "float"
