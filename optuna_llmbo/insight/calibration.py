"""Whether trials end where they were expected to: predictions made before they ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math

from optuna.trial import FrozenTrial
from scipy import stats

from optuna_llmbo.insight.tried import Tried
from optuna_llmbo.insight.tried import tried_of
from optuna_llmbo.suggestion.provenance import PREFIX


LEVELS = (0.68, 0.95)
_LUCK = 0.95


@dataclass(frozen=True)
class Expected:
    """A complete trial and what the model had expected of it."""

    trial: Tried
    mean: float
    """In the objective's units."""
    deviation: float
    """Half of the central 68% interval of the noise-free value."""

    @property
    def observed(self) -> float:
        """The trial's value, finite."""
        assert self.trial.value is not None
        return self.trial.value


@dataclass(frozen=True)
class Coverage:
    """How many trials ended within a central interval."""

    level: float
    """Which share of them ought to, such as 0.68."""
    share: float
    """Which share of them did."""
    low: float
    """Lower end of where the share of a calibrated model lies with 95% probability: binomial, as
    if trials were independent of each other."""
    high: float
    """Its upper end."""

    @property
    def is_plausible(self) -> bool:
        """Whether a calibrated model would cover about as many."""
        return self.low <= self.share <= self.high


@dataclass(frozen=True)
class Calibration:
    """Predicted against observed values of the trials that the model chose."""

    trials: tuple[Expected, ...]
    coverages: tuple[Coverage, ...]
    """At each of `LEVELS`."""


def calibration_of(trials: Sequence[FrozenTrial]) -> Calibration | None:
    """Of the complete trials that say what was expected of them; None if there is none.

    The intervals are the mean and so many deviations to each side: 1 for 68%, 1.96 for 95%. The
    model expects the objective's noise-free value, so noise in the objective lowers the coverage.
    Infinite values are left out.
    """
    pairs = [pair for trial in trials if (pair := _expected(trial)) is not None]
    if not pairs:
        return None
    return Calibration(tuple(pairs), tuple(_coverage(pairs, level) for level in LEVELS))


def _expected(trial: FrozenTrial) -> Expected | None:
    mean, deviation = (trial.user_attrs.get(f"{PREFIX}{n}") for n in ("mean", "deviation"))
    tried = tried_of(trial)
    if not (_is_finite(mean) and _is_finite(deviation) and _is_finite(tried.value)):
        return None
    if not trial.state.is_finished() or tried.state in ("pruned", "interrupted", "failed"):
        return None
    return Expected(tried, float(mean), float(deviation))  # type: ignore[arg-type]


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _coverage(pairs: Sequence[Expected], level: float) -> Coverage:
    n, places = len(pairs), stats.norm.ppf((1 + level) / 2)
    inside = sum(abs(p.observed - p.mean) <= places * p.deviation for p in pairs)
    low, high = stats.binom.interval(_LUCK, n, level)
    return Coverage(level, float(inside) / n, float(low) / n, float(high) / n)
