"""Targets on the surrogate's scale, which collapsed runs do not set; and back.

Both maps are monotone, so the best target stays the best.

Shapes: n observed, m scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import norm
from scipy.stats import rankdata
from scipy.stats import yeojohnson


TransformName = Literal["winsorize", "normal_scores", "power"]
TRANSFORMS: tuple[TransformName, ...] = ("winsorize", "normal_scores", "power")

_BLOM = 3 / 8
"""Offset of the ranks' expected normal scores (Blom 1958)."""

_N_EARLY = 10
"""How many of the first targets set the fence. They are spread over the space; later ones crowd
around the best, and a fence of theirs would come so near that all else looked equally bad."""
_FENCE_IN_QUARTILE_RANGES = 3.0
"""Tukey's outer fence (1977, Exploratory Data Analysis): beyond it lies what is far out."""

_ROUNDING = 1e-12
"""Differences up to this share of the values are rounding: float64 has 16 digits."""


@dataclass(frozen=True)
class Scale:
    """A monotone map between a study's targets and scores of mean 0 and standard deviation 1.

    It is piecewise linear through its knots, the study's own targets.
    """

    targets: np.ndarray
    """(knots,) ascending, finite."""
    knots: np.ndarray
    """(knots,) their scores, ascending."""

    @classmethod
    def of(cls, targets: np.ndarray, transform: TransformName) -> Scale:
        """Make the scale of some targets.

        Bad outliers are always winsorized first: targets below Tukey's outer fence, the first
        quartile of the first ten minus three interquartile ranges, count as the fence; good
        outliers stay, as they are what the search looks for. Infinite values count as the fence,
        or as the best finite value.

        "winsorize" does no more; "normal_scores" takes the normal scores of the ranks, "power"
        Yeo and Johnson's transform at its maximum likelihood.

        Args:
            targets: (n,) in the order of the trials; larger is better, not nan.
            transform: one of `TRANSFORMS`.
        """
        fenced = _fence(targets)
        if all_equal(fenced):  # else rounding would be taken for what there is to learn
            fenced = np.full(len(fenced), fenced.max())
        values, first = np.unique(fenced, return_index=True)
        if transform == "normal_scores":
            scores = norm.ppf((rankdata(fenced) - _BLOM) / (len(fenced) + 1 - 2 * _BLOM))
        else:
            relative = fenced / (np.abs(fenced).max() or 1.0)  # squares of 1e200 are infinite
            scores = (relative - relative.mean()) / (relative.std() or 1.0)
            if transform == "power" and len(values) > 2:
                scores = yeojohnson(scores)[0]
        scores = (scores - scores.mean()) / (scores.std() or 1.0)
        return cls(values, scores[first])

    def scores(self, targets: np.ndarray) -> np.ndarray:
        """Scores of the targets that the scale was made from, (n,) float64."""
        return np.interp(targets, self.targets, self.knots)

    def inverse(self, scores: np.ndarray) -> np.ndarray:
        """Targets at scores (m,), (m,) float64; extrapolated linearly beyond the knots.

        Targets that are all equal do not say by how much others would differ. Then a standard
        deviation is the target's distance from 0, or 1 if it is 0: what was not tried is as
        uncertain as the target is large.
        """
        if len(self.knots) == 1:
            target = float(self.targets[0])
            return target + scores * (abs(target) or 1.0)
        inner = np.interp(scores, self.knots, self.targets)
        widths, rises = (np.diff(ends)[[0, -1]] for ends in (self.knots, self.targets))
        # Level where a good outlier has left no room between the scores of the others.
        slopes = np.divide(rises, widths, out=np.zeros(2), where=widths > 0)
        below = np.minimum(scores - self.knots[0], 0.0) * slopes[0]
        above = np.maximum(scores - self.knots[-1], 0.0) * slopes[1]
        return inner + below + above


def all_equal(values: np.ndarray) -> bool:
    """Whether finite values differ by no more than what rounding leaves of them."""
    return float(np.ptp(values)) <= _ROUNDING * float(np.abs(values).max())


def _fence(targets: np.ndarray) -> np.ndarray:
    finite = targets[np.isfinite(targets)]
    if not len(finite):
        return np.zeros(len(targets))
    low, high = np.quantile(finite[:_N_EARLY], [0.25, 0.75])
    fence = low - _FENCE_IN_QUARTILE_RANGES * (high - low) if high > low else finite.min()
    return np.clip(targets, max(fence, finite.min()), finite.max())
