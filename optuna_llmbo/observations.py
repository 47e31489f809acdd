"""What the surrogate is fitted to: this study's observations, and those of other studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optuna_llmbo.history import History
from optuna_llmbo.space import SearchSpace
from optuna_llmbo.targets import Scale
from optuna_llmbo.targets import TransformName
from optuna_llmbo.transfer import Source


MAX_OBSERVED = 200
"""Of this study: the cost of a fit grows with the cube of their number."""
MAX_FROM_A_SOURCE = 100


@dataclass(frozen=True)
class Observations:
    """n observations in one search space."""

    cube: np.ndarray
    """(n, n names) points in [0, 1]."""
    targets: np.ndarray
    """(n,) float64 on the surrogate's scale, each study's for itself."""
    gaps: np.ndarray
    """(n,) float64: 1 - the share of each run that was made."""
    sources: np.ndarray
    """(n,) float64: 0 for this study, i for the i-th other one with observations."""
    scale: Scale
    """Between this study's targets and the surrogate's scale."""
    kept: np.ndarray
    """Which of the history's observations these are; they come first."""

    @property
    def best(self) -> float:
        """The best target of this study, of complete trials if there are any."""
        own = self.sources == 0
        complete = own & (self.gaps == 0)
        return float(self.targets[complete if complete.any() else own].max())


def gather(
    space: SearchSpace,
    history: History,
    sources: Sequence[Source],
    transform: TransformName,
    seed: int,
) -> Observations:
    """This study's observations first, then the other studies', at most so many of each.

    Args:
        space: the parameters that are chosen together.
        history: of this study, with at least one observation.
        sources: the other studies.
        transform: of the targets.
        seed: of the choice among too many.
    """
    scale = Scale.of(history.targets, transform)
    kept = thin(history.targets, MAX_OBSERVED, seed)
    cubes = [space.to_unit([history.configurations[i] for i in kept])]
    targets = [scale.scores(history.targets)[kept]]
    for source in sources:
        if not len(source.targets):  # nothing usable in this space
            continue
        some = thin(source.targets, MAX_FROM_A_SOURCE, seed)
        cubes.append(source.cube[some])
        targets.append(Scale.of(source.targets, transform).scores(source.targets)[some])
    sizes = [len(part) for part in targets]
    return Observations(
        cube=np.vstack(cubes),
        targets=np.concatenate(targets),
        gaps=np.concatenate([history.gaps[kept], np.zeros(sum(sizes[1:]))]),
        sources=np.repeat(np.arange(len(sizes), dtype=np.float64), sizes),
        scale=scale,
        kept=kept,
    )


def thin(targets: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Which of many observations to fit to: the best half, and others by chance from all over.

    The best show where to look closer, the others where not to look.

    Args:
        targets: (n,) larger is better.
        most: how many to keep.
        seed: of the choice by chance.

    Returns:
        Their indices in ascending order, all of them if there are at most `most`.
    """
    if len(targets) <= most:
        return np.arange(len(targets))
    order = np.argsort(-targets, kind="stable")
    best, rest = order[: most // 2], order[most // 2 :]
    others = np.random.default_rng(seed).permutation(rest)[: most - len(best)]
    return np.sort(np.concatenate([best, others]))
