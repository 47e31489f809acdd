"""The pool to choose from: quasi-random points, neighbours of the best, a finite grid; unseen.

All are cubes, (m, d) points in [0, 1] at the places of admissible values: see `space`.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Set
from dataclasses import dataclass
from dataclasses import field
from functools import cached_property
from typing import Any
import warnings

import numpy as np
from scipy.stats import qmc

from optuna_llmbo.space.search_space import Configuration
from optuna_llmbo.space.search_space import Key
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.study.branches import Branches


MAX_ENUMERATED = 2**16
"""A finite space up to this size is enumerated whole (the paper's grid has 45,360)."""

_NEIGHBOUR_SCALES = (0.02, 0.05, 0.15)
_STARTUP_ATTEMPTS = 256


@dataclass(frozen=True)
class Region:
    """Where candidates may lie: the parameters that go together, some of them held."""

    structure: Branches
    held: Mapping[str, Any] = field(default_factory=dict)
    """Values of parameters that are chosen already."""
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
        """All points of a region that is enumerable."""
        return self._hold(self.space.grid())

    def spread(self, points: np.ndarray) -> np.ndarray:
        """Points with the parameters that their values lead to; see `Branches.spread`."""
        return self._allowed.spread(self._hold(self.space.snap(points)))

    def admit(self, points: np.ndarray) -> np.ndarray:
        """Those of some points that lie in the region once the held values are put in."""
        held = self._hold(self.space.snap(points))
        return held[self._allowed.is_consistent(held)]

    def _hold(self, points: np.ndarray) -> np.ndarray:
        points = points.copy()
        for name, value in self.held.items():
            if name in self.space.names:
                points[:, self.space.names.index(name)] = self.space.axis(name).to_unit(value)
        return points


def candidate_pool(
    region: Region,
    seen: Set[Key],
    best: np.ndarray,
    *,
    n: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Configurations to choose the next one from, none of them seen while unseen ones remain.

    A finite region of up to `MAX_ENUMERATED` is taken whole. Otherwise: n scrambled Sobol points
    and n / 4 neighbours of the best.

    Args:
        region: where they may lie.
        seen: keys of the configurations tried or running.
        best: the best configurations so far, to look around; may be empty.
        n: how many Sobol points.
        rng: source of all randomness.

    Returns:
        (m, d).
    """
    if region.is_enumerable:
        grid = region.whole()
        rest = unseen(region.space, grid, seen)
        return rest if len(rest) else grid
    drawn = region.spread(_sobol(region.space, rng, n=n))
    scales = rng.choice(_NEIGHBOUR_SCALES, size=(n // 4, 1))
    around = neighbours(region, best, scales, rng) if len(best) else drawn[:0]
    rest = unseen(region.space, np.vstack([around, drawn]), seen)
    return rest if len(rest) else drawn


def neighbours(
    region: Region, centres: np.ndarray, scales: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Normal steps from some of the centres, on all parameters or, as often, on one.

    A choice without an order is not near another: instead of a step it is drawn anew. A step that
    would lead to other parameters is not made.

    Args:
        region: where they may lie.
        centres: (c, d) to start from, each as often as the others.
        scales: (m, 1) deviations of the steps, in units of the parameters' ranges.
        rng: source of all randomness.

    Returns:
        At most m points; may hold the centres and repeat itself.
    """
    starts = centres[rng.integers(len(centres), size=len(scales))]
    moved = starts + rng.normal(size=starts.shape) * scales
    nominal = np.array([axis.is_nominal for axis in region.space.axes])
    anew = rng.random((len(scales), int(nominal.sum())))
    moved[:, nominal] = np.where(np.isnan(starts[:, nominal]), np.nan, anew)
    d = starts.shape[1]
    one_only = np.eye(d, dtype=bool)[rng.integers(d, size=len(scales))]
    all_of_them = rng.random((len(scales), 1)) < 0.5
    return region.admit(np.clip(np.where(all_of_them | one_only, moved, starts), 0.0, 1.0))


def startup_configuration(
    space: SearchSpace,
    seen: Set[Key],
    warp: Callable[[np.ndarray], np.ndarray],
    *,
    index: int,
    rng: np.random.Generator,
) -> Configuration:
    """The index-th point of a scrambled Sobol sequence, or the next one that is not seen.

    Workers that share the seed and differ in the index share one sequence without meeting.

    Args:
        space: the parameters that are chosen together, all of them shared.
        seen: keys of the configurations tried or running.
        warp: moves points of the cube to where good values are expected.
        index: place in the sequence: the trial's number.
        rng: scrambles the sequence; the same state for every index of a study.
    """
    points = space.snap(warp(_sobol(space, rng, n=_STARTUP_ATTEMPTS, skip=index)))
    chosen = unseen(space, points, seen)[:1]
    if not len(chosen) and space.n_configurations <= MAX_ENUMERATED:
        rest = unseen(space, space.grid(), seen)
        chosen = rest[[int(rng.integers(len(rest)))]] if len(rest) else chosen
    return space.from_unit(chosen if len(chosen) else points[:1])[0]


def unseen(space: SearchSpace, points: np.ndarray, seen: Set[Key]) -> np.ndarray:
    """The rows that are not seen, each once, in order."""
    rows = {key: i for i, key in reversed(list(enumerate(space.keys(points)))) if key not in seen}
    return points[sorted(rows.values())]


def _sobol(space: SearchSpace, rng: np.random.Generator, *, n: int, skip: int = 0) -> np.ndarray:
    engine = qmc.Sobol(len(space.names), scramble=True, rng=rng)
    if skip:
        engine.fast_forward(skip)
    with warnings.catch_warnings():  # balance needs a power of two; here it is no loss
        warnings.filterwarnings("ignore", message="The balance properties", category=UserWarning)
        return engine.random(n)
