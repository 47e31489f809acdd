"""How far what was expected before any trial has been trusted, trial by trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from optuna_llmbo.study.trial_facts import TrialFacts


OVERRULED = 0.25
"""Trust below which the trials have overruled what was expected: three to one against it."""


@dataclass(frozen=True)
class TrustCourse:
    """The trust at the trials that `LLMBOSampler`'s model has chosen; at least one."""

    trials: tuple[TrialFacts, ...]
    """Those that say it, by number."""

    @cached_property
    def values(self) -> tuple[float, ...]:
        """For each trial, the probability that values are better where they were expected to be,
        by the trials before it."""
        return tuple(one.trust for one in self.trials if one.trust is not None)

    @property
    def latest(self) -> float:
        """The trust at the last of the trials."""
        return self.values[-1]

    @property
    def overruled_from(self) -> int | None:
        """Number of the first trial from which on all trust is below `OVERRULED`; None if the
        latest is not."""
        found = None
        for one, value in zip(self.trials[::-1], self.values[::-1], strict=True):
            if value >= OVERRULED:
                break
            found = one.number
        return found


def trust_course(trials: Sequence[TrialFacts]) -> TrustCourse | None:
    """The trust over a study; None if no trial says it, as nothing was expected.

    Args:
        trials: the study's trials, by number.
    """
    told = tuple(one for one in trials if one.trust is not None)
    return TrustCourse(told) if told else None
