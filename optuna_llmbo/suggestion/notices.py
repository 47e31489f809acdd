"""What a user has given that says nothing in a study, or less than it seems to: said once each."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np

from optuna_llmbo.errors import did_you_mean
from optuna_llmbo.knowledge import Context
from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.knowledge import Pack
from optuna_llmbo.space.axis import Axis
from optuna_llmbo.space.numeric_view import NumericView
from optuna_llmbo.space.prior import Range
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.study.transfer import SourceObservations
from optuna_llmbo.study.transfer import SourceStudy
from optuna_llmbo.suggestion.known import Known
from optuna_llmbo.suggestion.options import SamplerOptions
from optuna_llmbo.surrogate.targets import all_equal


_ENOUGH = 3
"""Fewest observations whose equality is worth a word."""


def notices(
    known: Known,
    options: SamplerOptions,
    studies: Sequence[SourceStudy],
    suggested: Collection[str],
) -> Iterator[str]:
    """Say what of the sampler's options is of no use in a study.

    Args:
        known: what is known of the study, its space in particular.
        options: the sampler's.
        studies: the other studies, one for each of `known.sources`.
        suggested: names of all parameters that the study's trials have had so far.

    Returns:
        A sentence for each; the text before the first colon tells them apart.
    """
    for name, expected in options.prior.items():
        if (why := _of_prior(name, expected, known.space, suggested)) is not None:
            yield f"prior[{name!r}] = {expected}: {why}"
    for name in options.descriptions.names:
        if (why := _without_use(name, known.space, suggested)) is not None:
            yield f"describe[{name!r}]: {why}"
    if (unused := _of_context(known.knowledge, options.knowledge.context)) is not None:
        yield unused
    yield from _of_packs(known)
    for study, source in zip(studies, known.sources, strict=True):
        if (why := _of_source(study, source, known.space)) is not None:
            yield f"the source study {study.name!r}: {why}"
    yield from _of_targets(known)


def _of_prior(
    name: str, expected: Range, space: SearchSpace, suggested: Collection[str]
) -> str | None:
    if (why := _without_use(name, space, suggested)) is not None:
        return why
    axis = space.axis(name)
    if axis.is_nominal:
        return "it says nothing, as the parameter's choices have no order."
    ends = tuple(map(axis.place, expected))
    if ends[0] == ends[1]:
        return f"it says nothing, as it lies outside of the range: {axis.values_text}."
    if not all(map(axis.encloses, expected)):
        return f"only its part inside the range counts: {axis.values_text}."
    return None


def _without_use(name: str, space: SearchSpace, suggested: Collection[str]) -> str | None:
    """Why nothing can be said of a parameter: it is none, or leaves no choice."""
    if name not in suggested:
        return f"no trial has had a parameter of this name so far.{did_you_mean(name, suggested)}"
    if name not in space.names:
        return "it says nothing, as the parameter leaves no choice."
    return None


def _of_context(knowledge: Knowledge, given: Context) -> str | None:
    """A context of the user's, if nothing in the packs depends on it."""
    conditions = [one.when for pack in knowledge.packs for one in pack.recommended]
    conditions += [
        typical.when
        for pack in knowledge.packs
        for one in pack.hyperparameters
        for typical in one.typical
    ]
    named = {name for one in conditions for name in one.known}
    unused = [name for name in given.known if name not in named]
    if not unused:
        return None
    packs = ", ".join(pack.name for pack in knowledge.packs) or "none"
    return (
        f"context: {', '.join(unused)} says nothing, as no number of the knowledge packs that fit "
        f"the study ({packs}) depends on it."
    )


def _of_packs(known: Known) -> Iterator[str]:
    """The built-in packs are selected by what they know; a user's own are always there."""
    space = known.space
    for pack in known.knowledge.packs:
        if not pack.always_relevant:
            continue
        knows = [name for name in space.names if pack.find(name) is not None]
        if pack.hyperparameters and not knows:
            theirs = ", ".join(one.name for one in pack.hyperparameters)
            yield (
                f"the knowledge pack {pack.name!r}: it knows none of the study's parameters "
                f"({', '.join(space.names)}), only {theirs}. Their names or aliases must be the "
                "study's."
            )
            continue
        yield from _of_choices(pack, knows, space)
        own = Knowledge((pack,), known.knowledge.context)
        for i, name in ((i, name) for i in range(own.n_recommended) for name in knows):
            value = own.recommended_value(i, name)
            if value is None or (nearest := _moved(space.axis(name), value)) is None:
                continue
            yield (
                f"the knowledge pack {pack.name!r} recommends {name} = {value!r}, which is not "
                f"{space.axis(name).values_text}: {nearest} is tried instead."
            )
        with_column = NumericView(space, own).derived_names
        for quantity in own.derived(space.names):
            if quantity.name not in with_column:
                yield (
                    f"the knowledge pack {pack.name!r} derives {quantity.name!r}, which is left "
                    "out: it is constant, or not a finite number everywhere in the space."
                )


def _of_choices(pack: Pack, knows: Iterable[str], space: SearchSpace) -> Iterator[str]:
    """Parameters of which a pack describes choices, but none that is there."""
    for name in knows:
        entry = pack.find(name)
        if entry is None or not entry.choices:
            continue
        if not any(
            map(entry.choice_description, getattr(space.distributions[name], "choices", ()))
        ):
            yield (
                f"the knowledge pack {pack.name!r} describes choices of {name}, none of which is "
                f"there: the parameter is {space.axis(name).values_text}."
            )


def _moved(axis: Axis, value: Any) -> str | None:
    """What is tried instead of a recommended value; None if it is tried itself."""
    nearest = axis.nearest(value)
    if nearest is None:
        return "the middle of the choices"
    same = nearest == value or (not axis.is_nominal and bool(np.isclose(nearest, value)))
    return None if same else repr(nearest)


def _of_source(study: SourceStudy, source: SourceObservations, space: SearchSpace) -> str | None:
    complete, n = study.complete, len(source.targets)
    if n == len(complete) > 0:
        return None
    if not complete:
        return "it teaches nothing, as it has no complete trial."
    theirs = sorted({name for trial in complete for name in trial.params})
    if not set(theirs) & set(space.names):
        return (
            f"it teaches nothing, as it has no parameter of this study ({', '.join(space.names)}),"
            f" only {', '.join(theirs) or 'none at all'}."
        )
    lacking = [name for name in space.shared if name not in theirs]
    if lacking:
        return f"it teaches nothing, as its trials lack {', '.join(lacking)}."
    return (
        f"only {n} of its {len(complete)} complete trials are used; the others have values "
        "outside of this study's ranges, or lack a parameter."
    )


def _of_targets(known: Known) -> Iterator[str]:
    targets = known.history.targets
    if known.history.n_observed < _ENOUGH:
        return
    for i, column in enumerate(targets.T):
        if np.isfinite(column).all() and all_equal(column):
            which = "objective" if targets.shape[1] == 1 else f"objective {i}"
            yield (
                f"all {len(column)} values of the {which} are equal so far: there is nothing to "
                "learn from yet. Does it depend on the parameters?"
            )
