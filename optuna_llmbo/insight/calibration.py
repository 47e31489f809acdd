"""Whether trials end where they were expected to, by predictions made before they ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math

from optuna.trial import FrozenTrial
from scipy import stats

from optuna_llmbo.study.trial_facts import trial_facts
from optuna_llmbo.study.trial_facts import TrialFacts


LEVELS = (0.68, 0.95)
_LUCK = 0.95


@dataclass(frozen=True)
class Expected:
    """A complete trial and what the model expected of it."""

    trial: TrialFacts
    mean: float
    """In the objective's units."""
    standard_deviation: float
    """Half of the central 68% interval, noise included."""

    @property
    def observed(self) -> float:
        """The trial's value, finite."""
        assert self.trial.value is not None
        return self.trial.value

    def is_within(self, level: float) -> bool:
        """Whether the trial ended within the central interval that holds `level` of outcomes."""
        reach = stats.norm.ppf((1 + level) / 2) * self.standard_deviation
        return bool(abs(self.observed - self.mean) <= reach)


@dataclass(frozen=True)
class Coverage:
    """Coverage of a central interval."""

    level: float
    """Nominal share of trials in the interval, such as 0.68."""
    inside: int
    """Number of trials in the interval."""
    below: int
    """Number of trials that ended below it."""
    above: int
    low: float
    """Lower end of the central 95% of a calibrated model's share: binomial, as if trials were
    independent."""
    high: float
    """Its upper end."""

    @property
    def share(self) -> float:
        """Observed share of trials in the interval."""
        return self.inside / (self.inside + self.below + self.above)

    @property
    def is_plausible(self) -> bool:
        """Whether a calibrated model could have this share."""
        return self.low <= self.share <= self.high


@dataclass(frozen=True)
class Calibration:
    """Predicted against observed values of the trials that the model chose."""

    trials: tuple[Expected, ...]
    coverages: tuple[Coverage, ...]
    """At each of `LEVELS`."""


def calibration_of(trials: Sequence[FrozenTrial]) -> Calibration | None:
    """Calibration over the complete trials that say what was expected of them; None without any.

    The intervals are the mean plus and minus the normal quantile times the standard deviation.
    Infinite values are left out.
    """
    pairs = [pair for trial in trials if (pair := _expected(trial)) is not None]
    if not pairs:
        return None
    return Calibration(tuple(pairs), tuple(_coverage(pairs, level) for level in LEVELS))


def _expected(trial: FrozenTrial) -> Expected | None:
    facts = trial_facts(trial)
    if facts.outcome not in ("complete", "infeasible") or len(facts.expected) != 1:
        return None
    if facts.value is None or not math.isfinite(facts.value):
        return None
    return Expected(facts, facts.expected[0], facts.standard_deviations[0])


def _coverage(pairs: Sequence[Expected], level: float) -> Coverage:
    n, outside = len(pairs), [pair for pair in pairs if not pair.is_within(level)]
    below = sum(pair.observed < pair.mean for pair in outside)
    low, high = stats.binom.interval(_LUCK, n, level)
    return Coverage(
        level=level,
        inside=n - len(outside),
        below=below,
        above=len(outside) - below,
        low=float(low) / n,
        high=float(high) / n,
    )
