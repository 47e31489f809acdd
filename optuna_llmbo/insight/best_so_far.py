"""The best trials so far, and the gain over the default configuration."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import math

from optuna_llmbo.insight.objective import Objective
from optuna_llmbo.study.trial_facts import TrialFacts


@dataclass(frozen=True)
class BestSoFar:
    """The best so far, in the objective's units."""

    best: tuple[TrialFacts, ...]
    """Trials that were the best when they ended, by number; the last is the best of all. They are
    complete, feasible and finite."""
    counts: Mapping[str, int]
    """Number of trials by outcome."""
    n_not_finite: int
    """Number of complete trials whose value is infinite or nan; they are never the best."""
    default: TrialFacts | None
    """The default configuration's trial (`outcome.default_trial`), if its value is finite."""
    gain: float | None
    """How much better the best is than the default; at least 0."""


def best_so_far_of(
    trials: Sequence[TrialFacts], objective: Objective, default: int | None
) -> BestSoFar | None:
    """Find the best trials so far; None if no trial is complete with a finite value.

    Args:
        trials: the trials that have begun, by number.
        objective: the study's.
        default: number of the default configuration's trial.
    """
    done = [t for t in trials if t.outcome == "complete"]
    finite = [t for t in done if t.value is not None and math.isfinite(t.value)]
    if not finite:
        return None
    best: list[TrialFacts] = []
    for trial in finite:
        if not best or _better(trial, best[-1], objective):
            best.append(trial)
    known = next((t for t in finite if t.number == default), None)
    states = [t.outcome for t in trials]
    return BestSoFar(
        best=tuple(best),
        counts={state: states.count(state) for state in dict.fromkeys(states)},
        n_not_finite=len(done) - len(finite),
        default=known,
        gain=None if known is None else _gain(best[-1], known, objective),
    )


def _better(one: TrialFacts, other: TrialFacts, objective: Objective) -> bool:
    return _gain(one, other, objective) > 0


def _gain(one: TrialFacts, other: TrialFacts, objective: Objective) -> float:
    assert one.value is not None and other.value is not None
    return objective.sign * (one.value - other.value)
