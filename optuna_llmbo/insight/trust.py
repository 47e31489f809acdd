"""Where good values were expected, how far that is trusted, and whether it has been overruled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import Any

from optuna_llmbo.space.prompt import format_value
from optuna_llmbo.study.trial_facts import TrialFacts
from optuna_llmbo.study.trust import trust_course
from optuna_llmbo.study.trust import TrustCourse
from optuna_llmbo.suggestion.fitted import FittedModel
from optuna_llmbo.surrogate.hypothesis import PRIOR_TRUST


GIVEN = "the given prior"
"""What ranges are called that the sampler's `prior` says."""


@dataclass(frozen=True)
class ExpectedRange:
    """The range of a parameter in which good values were expected."""

    name: str
    low: float
    high: float
    best: Any = None
    """The parameter's value in the best trial; None if that has none."""

    @property
    def text(self) -> str:
        """The parameter and its range in words."""
        return f"{self.name} {format_value(self.low)} to {format_value(self.high)}"

    @property
    def holds_the_best(self) -> bool | None:
        """Whether the best trial lies inside; None if there is none or it lacks the parameter."""
        return None if self.best is None else bool(self.low <= self.best <= self.high)


@dataclass(frozen=True)
class Expected:
    """What the sampler that was asked expects in the study."""

    sources: tuple[str, ...]
    """The knowledge packs that say so, by name; `GIVEN` for the sampler's `prior`."""
    ranges: tuple[ExpectedRange, ...]


@dataclass(frozen=True)
class Trust:
    """How far the knowledge is trusted."""

    course: TrustCourse
    expected: Expected | None = None
    """None where the sampler that was asked expects nothing, or could not be asked."""
    before: float = PRIOR_TRUST
    """The trust before the first trial."""

    @property
    def summary(self) -> str:
        """The latest trust, that before the first trial, and when it was overruled."""
        now, first = f"{self.course.latest:.2f}", f"{self.before:.2f}"
        said = f"trusted {now} at trial {self.course.trials[-1].number}, {first} before the first"
        since = self.course.overruled_from
        return said if since is None else f"{said}; overruled from trial {since} on"

    @property
    def title(self) -> str:
        """What the text is about: "Knowledge", and whose."""
        return f"Knowledge ({', '.join(self.expected.sources)})" if self.expected else "Knowledge"

    @property
    def text(self) -> str:
        """The summary, where values were expected to be better, and where the best trial lies."""
        if self.expected is None:
            return f"{self.summary}."
        places = ", ".join(one.text for one in self.expected.ranges)
        where = (
            f". Good values are expected at {places}"
            if self.course.overruled_from is None
            else f": the trials are better explained without expecting good values at {places}"
        )
        return f"{self.summary}{where}.{self._of_the_best(self.expected.ranges)}"

    @staticmethod
    def _of_the_best(ranges: Sequence[ExpectedRange]) -> str:
        """Whether the best trial lies where it was expected; empty if there is none."""
        if all(one.holds_the_best is None for one in ranges):
            return ""
        outside = [one.name for one in ranges if one.holds_the_best is False]
        where = "outside in " + ", ".join(outside) if outside else "inside"
        return f" The best trial lies {where}."


def trust_of(
    trials: Sequence[TrialFacts], model: FittedModel | None, best: TrialFacts | None
) -> Trust | None:
    """How far knowledge and the user's prior are trusted; None if nothing was expected.

    The trust is what the trials say; the ranges are those of the sampler that fitted the model.

    Args:
        trials: the study's, by number.
        model: the fitted model; None if there is none.
        best: the best trial; None if there is none.
    """
    course = trust_course(trials)
    return None if course is None else Trust(course, None if model is None else _of(model, best))


def _of(model: FittedModel, best: TrialFacts | None) -> Expected | None:
    known, given = model.known, model.data.options.prior
    ranges = known.prior.effective
    if not ranges:
        return None
    packs = [
        pack.name
        for pack in known.knowledge.packs
        if any(
            replace(known.knowledge, packs=(pack,)).typical_range(name) == expected
            for name, expected in ranges.items()
            if name not in given
        )
    ]
    params = {} if best is None else best.params
    return Expected(
        sources=(*([GIVEN] if given.keys() & ranges.keys() else []), *packs),
        ranges=tuple(
            ExpectedRange(name, low, high, params.get(name))
            for name, (low, high) in ranges.items()
        ),
    )
