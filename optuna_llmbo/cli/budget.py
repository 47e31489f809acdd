"""What a search may cost, and what of it a trial takes."""

from __future__ import annotations

from dataclasses import dataclass
import math

from optuna_llmbo._util.duration import exact_duration
from optuna_llmbo._util.duration import format_duration


@dataclass(frozen=True)
class Budget:
    """What a search may cost."""

    n_trials: int
    """Finished trials that the study should have at the end."""
    seconds: float | None = None
    """No trial begins after this time, from the first one of this call on; None: any time."""
    stops: bool = False
    """Whether the trials that run then are stopped; else they end by themselves."""
    at_once: int = 1
    """Trials that run side by side, each in its own time."""

    def known(self, n_there: int, trial_seconds: float | None) -> str:
        """What is known before the first trial of this call, as a sentence.

        Args:
            n_there: finished trials that the study has.
            trial_seconds: most seconds that a trial may take, or None.
        """
        parts = [_count(self.n_trials - n_there, n_there)]
        if self.seconds is not None:
            then = "is stopped" if self.stops else "may end"
            parts.append(f"{exact_duration(self.seconds)} (a trial that runs then {then})")
        if trial_seconds is not None:
            parts.append(f"{exact_duration(trial_seconds)} a trial")
        return f"Budget: {', '.join(parts)}."


@dataclass(frozen=True)
class Estimate:
    """How far a budget goes, by what one trial took."""

    budget: Budget
    trial_seconds: float
    n_there: int
    """Finished trials that the study had when this call began."""

    @property
    def n_trials(self) -> int:
        """Trials that were missing when this call began."""
        return self.budget.n_trials - self.n_there

    @property
    def seconds(self) -> float:
        """What they take if all take as long."""
        return self.trial_seconds * math.ceil(self.n_trials / self.budget.at_once)

    @property
    def n_fitting(self) -> int:
        """How many of them fit into the time of the search."""
        if self.budget.seconds is None or self.seconds <= self.budget.seconds:
            return self.n_trials
        rounds = self.budget.seconds / max(self.trial_seconds, 1e-9)
        whole = math.floor(rounds) if self.budget.stops else math.ceil(rounds)
        return min(self.n_trials, whole * self.budget.at_once)

    def __str__(self) -> str:
        what = _count(self.n_trials, self.n_there)
        takes = "takes" if self.n_trials == 1 else "take"
        text = (
            f"A trial takes about {format_duration(self.trial_seconds)}: {what} {takes} about "
            f"{format_duration(self.seconds)}"
        )
        if self.budget.seconds is None:
            return f"{text}."
        time = exact_duration(self.budget.seconds)
        if self.n_fitting == self.n_trials:
            return f"{text}; {time} has room for them."
        return f"{text}; about {self.n_fitting} of {self.n_trials} fit into {time}."


def _count(n: int, n_there: int) -> str:
    """How many trials, and whether there are some already."""
    return f"{n} {'further ' if n_there else ''}trial{'' if n == 1 else 's'}"
