"""What the sampler would try next, and why."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from optuna_llmbo.insight.belief import Belief
from optuna_llmbo.insight.objective import Objective
from optuna_llmbo.study.trial_facts import TrialFacts
from optuna_llmbo.suggestion.decision import Prediction


N_RUNNERS_UP = 4
TERMS = ("improvement", "prior", "cost")
_ALIKE = 0.9
"""Candidates with a higher correlation count as the same idea."""
_LOOKED_AT = 512
"""Number of candidates searched for runners-up."""
_MANY = 10.0
"""Largest logarithm of a ratio that is written out."""


@dataclass(frozen=True)
class Near:
    """A trial as seen from a candidate."""

    number: int
    correlation: float
    """Correlation of the two values under the process's prior: 1 for the same configuration, 0 for
    one that says nothing about the other."""
    differences: Mapping[str, tuple[Any, Any]]
    """Parameters that differ: name -> (the trial's value, the candidate's), None if absent."""


@dataclass(frozen=True)
class Candidate:
    """A configuration worth trying."""

    params: Mapping[str, Any]
    expected: Prediction
    """In the objective's units; the interval is that of the noise-free value."""
    score: float
    """Sum of the three terms, all of them logarithms."""
    terms: Mapping[str, float]
    """"improvement", "prior" and "cost", which add up to the score. They are logarithms, so only
    their differences between candidates mean something."""
    nearest: Near | None
    """The trial that the process takes to be most like it."""


@dataclass(frozen=True)
class Next:
    """The next configuration, and what else was considered."""

    chosen: Candidate
    to_best: Near | None
    """The best trial so far, seen from the chosen candidate."""
    runners_up: tuple[Candidate, ...]
    """The next best by score, each unlike those before it (correlation below 0.9)."""
    points: np.ndarray
    """(1 + runners-up, d) the candidates as points."""
    text: str
    """Why, in a few plain sentences."""


def next_of(
    belief: Belief,
    candidates: np.ndarray,
    trials: Sequence[TrialFacts],
    best: TrialFacts | None,
    objective: Objective,
    n_missing: int,
) -> Next:
    """Explain the first of the candidates.

    Args:
        belief: the fitted model.
        candidates: (m, d), the best first.
        trials: the trials that have begun.
        best: the best of them.
        objective: the study's.
        n_missing: start-up trials that are missing before the sampler uses the model.
    """
    points = _unlike(belief, candidates[:_LOOKED_AT])
    found = _described(belief, points, trials)
    to_best = None
    if best is not None:
        to_best = next(iter(_near(belief, points[:1], [best])), None)
    said = [
        _expectation(found[0], best, objective),
        _place(found[0], best),
        _reason(found[0], found[1:]),
        f"The sampler would not ask the model yet: {n_missing} more start-up trials come first."
        if n_missing > 0
        else "",
    ]
    text = " ".join(sentence for sentence in said if sentence)
    return Next(found[0], to_best, tuple(found[1:]), points, text)


def _unlike(belief: Belief, candidates: np.ndarray) -> np.ndarray:
    """The first candidate, and the next ones that are unlike all before."""
    correlation = belief.correlation(candidates, candidates)
    taken = [0]
    for i in range(1, len(candidates)):
        if len(taken) <= N_RUNNERS_UP and (correlation[i, taken] < _ALIKE).all():
            taken.append(i)
    return candidates[taken]


def _described(
    belief: Belief, points: np.ndarray, trials: Sequence[TrialFacts]
) -> list[Candidate]:
    terms = belief.model.terms(points)
    configurations = belief.known.space.from_unit(points)
    nearest: list[Near | None] = [*_near(belief, points, trials)] or [None] * len(points)
    return [
        Candidate(
            params=dict(configurations[i]),
            expected=belief.prediction(points[i]),
            score=float(terms.score[i]),
            terms={name: float(getattr(terms, name)[i]) for name in TERMS},
            nearest=nearest[i],
        )
        for i in range(len(points))
    ]


def _near(belief: Belief, points: np.ndarray, trials: Sequence[TrialFacts]) -> list[Near]:
    """The trial most like each point; empty if no trial has a place in the space."""
    space = belief.known.space
    pairs = [(t, c) for t in trials if (c := space.restrict(t.params)) is not None]
    if not pairs:
        return []
    correlation = belief.correlation(points, space.to_unit([c for _, c in pairs]))
    found = []
    for row, here in zip(correlation, space.from_unit(points), strict=True):
        i = int(row.argmax())
        trial, there = pairs[i]
        names = sorted({*here, *there})
        differences = {
            n: (there.get(n), here.get(n)) for n in names if there.get(n) != here.get(n)
        }
        found.append(Near(trial.number, float(row[i]), differences))
    return found


def _expectation(chosen: Candidate, best: TrialFacts | None, objective: Objective) -> str:
    expected = chosen.expected
    said = (
        f"The model expects {expected.mean:.4g} for {objective.name}, with 95% between "
        f"{expected.low:.4g} and {expected.high:.4g}"
    )
    if best is None:
        return f"{said}."
    return f"{said}; the best so far is {best.value:.4g}, of trial {best.number}."


def _place(chosen: Candidate, best: TrialFacts | None) -> str:
    near = chosen.nearest
    if near is None:
        return ""
    kind = "close to" if near.correlation >= _ALIKE else "away from"
    is_best = best is not None and best.number == near.number
    return (
        f"It is {kind} what was tried: the most similar is trial {near.number}"
        f"{', the best so far' if is_best else ''} (correlation {near.correlation:.2f})."
    )


def _reason(chosen: Candidate, others: Sequence[Candidate]) -> str:
    """Name the term that sets it apart most from the runners-up."""
    if not others:
        return ""
    ahead = {
        name: chosen.terms[name] - float(np.mean([c.terms[name] for c in others]))
        for name in TERMS
    }
    name = max(TERMS, key=lambda term: ahead[term])
    what = {
        "improvement": "the expected improvement, {} times theirs (geometric mean)",
        "prior": "prior knowledge, which weighs it {} times as much",
        "cost": "time: theirs takes {} times as long",
    }[name]
    return f"What sets it apart from the runners-up is {what.format(_times(ahead[name]))}."


def _times(log: float) -> str:
    return f"{np.exp(log):.3g}" if log < _MANY else "very many"
