"""A map on which configurations that the model takes to be alike are close."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optuna_llmbo.insight.belief import Belief
from optuna_llmbo.insight.belief import N_REFERENCE
from optuna_llmbo.study.trial_facts import TrialFacts


@dataclass(frozen=True)
class Place:
    """A configuration on the map."""

    x: float
    y: float
    mean: float
    """What the model expects of it, in the objective's units."""


@dataclass(frozen=True)
class EmbeddingMap:
    """Kernel PCA of the fitted process's prior covariance (Schoelkopf, Smola & Mueller 1998).

    Distances in the full embedding are the process's own: d(a, b)^2 = k(a, a) + k(b, b) -
    2 k(a, b), the prior variance of the difference of the two values.
    """

    tried: tuple[tuple[TrialFacts, Place], ...]
    candidates: tuple[Place, ...]
    """Configurations from all over the space."""
    next: tuple[Place, ...]
    """The best by the acquisition, the best first."""
    best: int | None
    """Number of the trial that is the best so far."""
    share: float
    """Share of the variance along the two axes, in (0, 1]."""
    has_text: bool
    """Whether the language model's embedding is part of the distance."""


def map_of(
    belief: Belief, trials: Sequence[TrialFacts], upcoming: np.ndarray, best: int | None
) -> EmbeddingMap:
    """Map the tried configurations, those to try next, and others.

    Args:
        belief: the fitted model.
        trials: shown where they have a place in the model's space.
        upcoming: (upcoming, d) points to try next, the best first.
        best: number of the best trial so far.
    """
    space = belief.known.space
    pairs = [(t, c) for t in trials if (c := space.restrict(t.params)) is not None]
    tried = space.to_unit([c for _, c in pairs])
    others = belief.sample(N_REFERENCE)
    points = np.vstack([tried, upcoming, others])
    axes, share = principal_axes(belief.covariance(points))
    means = belief.predictions(points)[:, 0]
    places = [
        Place(float(x), float(y), float(mean)) for (x, y), mean in zip(axes, means, strict=True)
    ]
    n, m = len(tried), len(upcoming)
    return EmbeddingMap(
        tried=tuple((t, place) for (t, _), place in zip(pairs, places[:n], strict=True)),
        next=tuple(places[n : n + m]),
        candidates=tuple(places[n + m :]),
        best=best,
        share=share,
        has_text="text" in belief.views,
    )


def principal_axes(covariance: np.ndarray) -> tuple[np.ndarray, float]:
    """Compute the first two axes of kernel PCA and their share of the variance.

    Args:
        covariance: (m, m) positive semidefinite.

    Returns:
        (m, 2) coordinates, each axis' largest one positive, as the sign is arbitrary; and the
        share, 1 where all points are the same.
    """
    centred = covariance - covariance.mean(axis=0)
    centred = centred - centred.mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh((centred + centred.T) / 2)
    values = np.clip(values[::-1], 0.0, None)
    axes = np.zeros((len(covariance), 2))
    for i in range(min(2, len(values))):
        axis = vectors[:, -1 - i] * np.sqrt(values[i])
        axes[:, i] = axis * (np.sign(axis[np.abs(axis).argmax()]) or 1.0)
    total = float(values.sum())
    return axes, float(values[:2].sum()) / total if total > 0 else 1.0
