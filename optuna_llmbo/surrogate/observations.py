"""What the surrogate is fitted to: observations of this study and of others.

Shapes: n observed, d parameters, q objectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.study.history import best_first
from optuna_llmbo.study.history import History
from optuna_llmbo.study.transfer import SourceObservations
from optuna_llmbo.surrogate.targets import Scale
from optuna_llmbo.surrogate.targets import TransformName


MAX_OBSERVED = 200
"""Most observations of this study: the cost of a fit grows with the cube of their number."""
MAX_FROM_A_SOURCE = 100
_LEAST_INSIDE = 3


@dataclass(frozen=True)
class Observations:
    """n observations in one search space."""

    points: np.ndarray
    """(n, d) points in [0, 1]."""
    targets: np.ndarray
    """(n, q) float64 on the surrogate's scale; each study has its own."""
    gaps: np.ndarray
    """(n,) float64: 1 - the share of its steps that each trial ran."""
    sources: np.ndarray
    """(n,) float64: 0 for this study, i for the i-th other one with observations."""
    scales: tuple[Scale, ...]
    """Maps between this study's targets and the surrogate's scale, one for each objective."""
    kept: np.ndarray
    """(kept,) indices into the history's observations; these come first."""

    def achieved(self, feasible: np.ndarray) -> np.ndarray:
        """This study's targets to improve on, (rows, q): those of complete, feasible trials.

        Those of complete trials if none is feasible; all if none is complete.

        Args:
            feasible: (kept,) bool.
        """
        n = len(self.kept)
        targets, complete = self.targets[:n], self.gaps[:n] == 0
        for counts in (complete & feasible, complete):
            if counts.any():
                return targets[counts]
        return targets


def gather(
    space: SearchSpace,
    history: History,
    sources: Sequence[SourceObservations],
    transform: TransformName,
    seed: int,
) -> Observations:
    """Gather this study's observations, then the other studies', up to a limit for each.

    Args:
        space: the parameters that are chosen together.
        history: of this study, with at least one observation.
        sources: the other studies.
        transform: how targets are scaled.
        seed: decides which are kept of too many.
    """
    points = space.to_unit(history.configurations)
    scales = _scales(history.targets[_setting_the_scale(points)], transform)
    kept = thin(history.targets, MAX_OBSERVED, seed)
    point_sets = [points[kept]]
    targets = [_scores(history.targets, scales)[kept]]
    for source in sources:
        if not len(source.targets):  # nothing usable in this space
            continue
        some = thin(source.targets, MAX_FROM_A_SOURCE, seed)
        point_sets.append(source.points[some])
        of_source = _scales(source.targets, transform)
        targets.append(_scores(source.targets, of_source)[some])
    sizes = [len(part) for part in targets]
    return Observations(
        points=np.vstack(point_sets),
        targets=np.vstack(targets),
        gaps=np.concatenate([history.gaps[kept], np.zeros(sum(sizes[1:]))]),
        sources=np.repeat(np.arange(len(sizes), dtype=np.float64), sizes),
        scales=scales,
        kept=kept,
    )


def thin(targets: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Choose which of many observations to fit to: the best, and a random sample of the others.

    The best show where to look closer, the others where not to look.

    Args:
        targets: (n, q) larger is better.
        most: how many to keep, half of them the best.
        seed: decides the random sample.

    Returns:
        Their indices in ascending order, all of them if there are at most `most`.
    """
    if len(targets) <= most:
        return np.arange(len(targets))
    order = best_first(targets)
    best, rest = order[: most // 2], order[most // 2 :]
    others = np.random.default_rng(seed).permutation(rest)[: most - len(best)]
    return np.sort(np.concatenate([best, others]))


def _setting_the_scale(points: np.ndarray) -> np.ndarray:
    """Which observations the scale is made from, (n,) bool.

    Where a range has moved, those inside the current range, if there are a few of them; the
    others count as the scale's ends at most.
    """
    inside: np.ndarray = np.asarray(~((points < 0) | (points > 1)).any(axis=1))
    return inside if inside.sum() >= _LEAST_INSIDE else np.ones_like(inside)


def _scales(targets: np.ndarray, transform: TransformName) -> tuple[Scale, ...]:
    return tuple(Scale.of(column, transform) for column in targets.T)


def _scores(targets: np.ndarray, scales: Sequence[Scale]) -> np.ndarray:
    columns = zip(scales, targets.T, strict=True)
    return np.column_stack([scale.scores(column) for scale, column in columns])
