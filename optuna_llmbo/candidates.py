"""The pool to choose from: quasi-random points, neighbours of the best, a finite grid; unseen."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from collections.abc import Set
import itertools
import warnings

import numpy as np
from scipy.stats import qmc

from optuna_llmbo.space import Configuration
from optuna_llmbo.space import Key
from optuna_llmbo.space import SearchSpace


MAX_ENUMERATED = 2**16
"""A finite space up to this size is enumerated whole (the paper's grid has 45,360)."""

_NEIGHBOUR_SCALES = (0.02, 0.05, 0.15)
_STARTUP_ATTEMPTS = 256


def candidate_pool(
    space: SearchSpace,
    seen: Set[Key],
    best: Sequence[Configuration],
    *,
    n: int,
    rng: np.random.Generator,
) -> list[Configuration]:
    """Configurations to choose the next one from, none of them seen while unseen ones remain.

    A finite space of up to `MAX_ENUMERATED` is taken whole. Otherwise: n scrambled Sobol points
    and n / 4 neighbours of the best, normal steps in the unit cube on one parameter or on all.

    Args:
        space: the parameters that are chosen together.
        seen: keys of the configurations tried or running.
        best: the best configurations so far, to look around.
        n: how many Sobol points.
        rng: source of all randomness.
    """
    if space.n_configurations <= MAX_ENUMERATED:
        grid = list(space.grid())
        return _unseen(space, grid, seen) or grid
    drawn = space.from_unit(_sobol(space, rng, n=n))
    around = space.from_unit(_neighbours(space, best, n // 4, rng)) if best else []
    return _unseen(space, itertools.chain(around, drawn), seen) or drawn


def startup_configuration(
    space: SearchSpace, seen: Set[Key], *, index: int, rng: np.random.Generator
) -> Configuration:
    """The index-th point of a scrambled Sobol sequence, or the next one that is not seen.

    Workers that share the seed and differ in the index share one sequence without meeting.

    Args:
        space: the parameters that are chosen together.
        seen: keys of the configurations tried or running.
        index: place in the sequence: the trial's number.
        rng: scrambles the sequence; the same state for every index of a study.
    """
    points = space.from_unit(_sobol(space, rng, n=_STARTUP_ATTEMPTS, skip=index))
    if unseen := _unseen(space, points, seen):
        return unseen[0]
    if space.n_configurations <= MAX_ENUMERATED:
        rest = _unseen(space, space.grid(), seen)
        return rest[int(rng.integers(len(rest)))] if rest else points[0]
    return points[0]


def _unseen(
    space: SearchSpace, configurations: Iterable[Configuration], seen: Set[Key]
) -> list[Configuration]:
    """The configurations that are not seen, each once, in order."""
    rest = {space.key(configuration): configuration for configuration in configurations}
    return [configuration for key, configuration in rest.items() if key not in seen]


def _sobol(space: SearchSpace, rng: np.random.Generator, *, n: int, skip: int = 0) -> np.ndarray:
    engine = qmc.Sobol(len(space.names), scramble=True, rng=rng)
    if skip:
        engine.fast_forward(skip)
    with warnings.catch_warnings():  # balance needs a power of two; here it is no loss
        warnings.filterwarnings("ignore", message="The balance properties", category=UserWarning)
        return engine.random(n)


def _neighbours(
    space: SearchSpace, best: Sequence[Configuration], n: int, rng: np.random.Generator
) -> np.ndarray:
    centres = space.to_unit(best)[rng.integers(len(best), size=n)]
    steps = rng.normal(size=centres.shape) * rng.choice(_NEIGHBOUR_SCALES, size=(n, 1))
    one_only = np.eye(centres.shape[1])[rng.integers(centres.shape[1], size=n)]
    moves_all = rng.random((n, 1)) < 0.5
    return np.clip(centres + np.where(moves_all, steps, steps * one_only * 2), 0.0, 1.0)
