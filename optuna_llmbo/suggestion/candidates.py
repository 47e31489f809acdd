"""The pool to choose from: quasi-random points, neighbours of the best, a finite grid; unseen.

Points are arrays (m, d) in [0, 1] at admissible values: see `space.search_space`.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from collections.abc import Set
from dataclasses import dataclass
from dataclasses import field
from functools import cached_property
from typing import Any

import numpy as np
from scipy.stats import norm
from scipy.stats import qmc

from optuna_llmbo.space.axis import Axis
from optuna_llmbo.space.search_space import Configuration
from optuna_llmbo.space.search_space import Key
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.study.branches import Branches


MAX_ENUMERATED = 2**16
"""Largest finite space that is enumerated (the paper's grid has 45,360 configurations)."""

_NEIGHBOUR_SCALES = (0.02, 0.05, 0.15)
_STARTUP_ATTEMPTS = 256


@dataclass(frozen=True)
class Region:
    """Where candidates may lie: parameters that are chosen together, some of them held fixed."""

    structure: Branches
    held: Mapping[str, Any] = field(default_factory=dict)
    """Values of parameters that are already chosen."""
    required: tuple[str, ...] = ()
    """Other parameters that a candidate must have."""

    @property
    def space(self) -> SearchSpace:
        """The parameters that are chosen together."""
        return self.structure.space

    @property
    def is_enumerable(self) -> bool:
        """Whether the pool is the whole region."""
        return self.space.n_configurations <= MAX_ENUMERATED and not self.space.groups

    @cached_property
    def _allowed(self) -> Branches:
        wanted = {*self.held, *self.required}
        return self.structure.with_all([name for name in self.space.names if name in wanted])

    def whole(self) -> np.ndarray:
        """All points of an enumerable region."""
        return self._hold(self.space.grid())

    def spread(self, points: np.ndarray) -> np.ndarray:
        """Put in the held values and drop absent parameters; see `Branches.spread`."""
        return self._allowed.spread(self._hold(self.space.snap(points)))

    def admit(self, points: np.ndarray) -> np.ndarray:
        """Put in the held values and keep the points that lie in the region."""
        held = self._hold(self.space.snap(points))
        return held[self._allowed.is_consistent(held)]

    def _hold(self, points: np.ndarray) -> np.ndarray:
        points = points.copy()
        for name, value in self.held.items():
            if name in self.space.names:
                points[:, self.space.names.index(name)] = self.space.axis(name).to_unit(value)
        return points


@dataclass(frozen=True)
class Landmarks:
    """Points that are known by name; either may be empty."""

    best: np.ndarray
    """(best, d) the best ones so far, which candidates are drawn around."""
    advised: np.ndarray
    """(advised, d) what packs recommend and what was best in other studies: candidates too."""


Places = Sequence[np.ndarray | None]
"""For each nominal parameter (C, k) coordinates of its C choices; None where all are as far from
each other."""


def candidate_pool(
    region: Region,
    seen: Set[Key],
    landmarks: Landmarks,
    places: Places,
    *,
    n: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw the configurations to choose from, none of them seen while unseen ones remain.

    A finite region of up to `MAX_ENUMERATED` configurations is enumerated, in a random order, so
    that those that nothing is known of are not tried as they are listed. Otherwise the pool is
    n scrambled Sobol points, n / 4 neighbours of the best, and what is advised.

    Args:
        region: where candidates may lie.
        seen: keys of the configurations that were tried or are running.
        landmarks: where to look besides.
        places: of the choices, for the neighbours.
        n: number of Sobol points.
        rng: source of all randomness.

    Returns:
        (m, d).
    """
    if region.is_enumerable:
        grid = region.whole()
        rest = unseen(region.space, grid, seen)
        rest = rest if len(rest) else grid
        return rest[rng.permutation(len(rest))]  # of equal ones the first is tried
    drawn = region.spread(_sobol(region.space, rng, n=n))
    scales = rng.choice(_NEIGHBOUR_SCALES, size=(n // 4, 1))
    best = landmarks.best
    around = neighbours(region, best, places, scales, rng) if len(best) else drawn[:0]
    advised = region.spread(landmarks.advised) if len(landmarks.advised) else drawn[:0]
    rest = unseen(region.space, np.vstack([advised, around, drawn]), seen)
    return rest if len(rest) else drawn


def neighbours(
    region: Region,
    centres: np.ndarray,
    places: Places,
    scales: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Take normal steps from the centres, along all parameters or, as often, along one.

    From a nominal choice a step leads to another one: to a near one the sooner the shorter the
    step is, or to any where all are as far. Steps that would lead to other parameters are left
    out.

    Args:
        region: where candidates may lie.
        centres: (centres, d) to start from, each equally often.
        places: of the choices.
        scales: (m, 1) standard deviations of the steps, in units of the parameters' ranges.
        rng: source of all randomness.

    Returns:
        At most m points; may include the centres and duplicates.
    """
    starts = centres[rng.integers(len(centres), size=len(scales))]
    moved = starts + rng.normal(size=starts.shape) * scales
    nominal = np.flatnonzero([axis.is_nominal for axis in region.space.axes])
    anew = rng.random((len(scales), len(nominal)))
    for column, coordinates, units in zip(nominal, places, anew.T, strict=True):
        axis, present = region.space.axes[column], ~np.isnan(starts[:, column])
        if coordinates is not None:
            steps = np.abs(norm.ppf((1 + units) / 2)) * scales[:, 0]
            units = _near(axis, starts[:, column], coordinates, steps)
        moved[:, column] = np.where(present, units, np.nan)
    d = starts.shape[1]
    one_only = np.eye(d, dtype=bool)[rng.integers(d, size=len(scales))]
    all_of_them = rng.random((len(scales), 1)) < 0.5
    return region.admit(np.clip(np.where(all_of_them | one_only, moved, starts), 0.0, 1.0))


def _near(
    axis: Axis, starts: np.ndarray, coordinates: np.ndarray, steps: np.ndarray
) -> np.ndarray:
    """The places in [0, 1] of other choices, the nearer the shorter the steps are, (m,).

    A whole step leads to the farthest choice, none to the nearest.

    Args:
        axis: of a nominal parameter.
        starts: (m,) places in [0, 1], some may be nan.
        coordinates: (C, k).
        steps: (m,) at least 0.
    """
    n = len(coordinates)
    ranks = np.minimum((steps * (n - 1)).astype(int), n - 2)
    index = axis.index(np.nan_to_num(starts))
    for choice in np.unique(index):
        distances = np.square(coordinates - coordinates[choice]).sum(axis=1)
        distances[choice] = np.inf
        rows = index == choice
        index = np.where(rows, np.argsort(distances, kind="stable")[ranks] + n, index)
    return (index - n + 0.5) / n


def startup_configuration(
    space: SearchSpace,
    seen: Set[Key],
    warp: Callable[[np.ndarray], np.ndarray],
    *,
    index: int,
    rng: np.random.Generator,
) -> Configuration:
    """Take the index-th point of a scrambled Sobol sequence, or the next unseen one.

    Workers with the same seed and different indices share one sequence without meeting.

    Args:
        space: the parameters that are chosen together, all of them shared.
        seen: keys of the configurations that were tried or are running.
        warp: maps uniform points to where good values are expected.
        index: position in the sequence: the trial's number.
        rng: scrambles the sequence; the same state for every index of a study.
    """
    points = space.snap(warp(_sobol(space, rng, n=_STARTUP_ATTEMPTS, skip=index)))
    chosen = unseen(space, points, seen)[:1]
    if not len(chosen) and space.n_configurations <= MAX_ENUMERATED:
        rest = unseen(space, space.grid(), seen)
        chosen = rest[[int(rng.integers(len(rest)))]] if len(rest) else chosen
    return space.from_unit(chosen if len(chosen) else points[:1])[0]


def unseen(space: SearchSpace, points: np.ndarray, seen: Set[Key]) -> np.ndarray:
    """The points that are not seen, each once, in order."""
    rows = {key: i for i, key in reversed(list(enumerate(space.keys(points)))) if key not in seen}
    return points[sorted(rows.values())]


def _sobol(space: SearchSpace, rng: np.random.Generator, *, n: int, skip: int = 0) -> np.ndarray:
    engine = qmc.Sobol(len(space.names), scramble=True, rng=rng)
    # SciPy warns of any other number of points than a power of two.
    return engine.random_base2((skip + n - 1).bit_length())[skip : skip + n]
