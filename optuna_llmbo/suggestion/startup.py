"""The first configurations of a study, before the model has anything to learn from."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.space.axis import Axis
from optuna_llmbo.space.search_space import Configuration
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.study.history import History
from optuna_llmbo.study.transfer import best_configurations
from optuna_llmbo.study.transfer import best_value
from optuna_llmbo.study.transfer import SourceObservations
from optuna_llmbo.suggestion.candidates import startup_configuration
from optuna_llmbo.suggestion.options import SamplerOptions


_N_FROM_SOURCES = 2


def start(
    space: SearchSpace,
    knowledge: Knowledge | None,
    sources: Sequence[SourceObservations],
    history: History,
    warp: Callable[[np.ndarray], np.ndarray],
    *,
    index: int,
    rng: np.random.Generator,
) -> tuple[Configuration, bool]:
    """Choose the next start-up configuration, and say whether it is advised.

    The order hedges: the best two of each other study; the configuration that the packs
    recommend first; the middle of all ranges (people put ranges around what they expect); a
    scrambled Sobol sequence from its beginning, whose every four points spread over all ranges.
    Of nominal choices that nobody advises, the middle and the sequence take one that was tried
    least: they have no middle, and one that was never tried may never be.

    Args:
        space: the parameters that are chosen together.
        knowledge: the packs that apply to it; None for no advice, not even the middle.
        sources: what other studies observed.
        history: this study's.
        warp: maps the sequence's points to where good values are expected.
        index: the trial's number.
        rng: scrambles the sequence; the same state for every trial of a study.
    """
    advised = [
        *best_of_sources(space, sources),
        *([] if knowledge is None else [recommended(space, knowledge, 0)]),
    ]

    def is_free(configuration: Configuration) -> bool:
        is_seen = space.key(configuration) in history.seen
        return not is_seen and not is_begun(space, configuration, history.begun)

    if (first := next(filter(is_free, advised), None)) is not None:
        return first, True
    tried = space.to_unit([*history.configurations, *history.infeasible, *history.pending])
    middle = _balanced(space, _middle(space), tried)
    if knowledge is not None and is_free(middle) and not _holds_middle(space, tried):
        return middle, True
    index = max(0, index - len(advised) - (knowledge is not None))
    configuration = startup_configuration(space, history.seen, warp, index=index, rng=rng)
    balanced = _balanced(space, configuration, tried)
    return (configuration if space.key(balanced) in history.seen else balanced), False


def first_value(
    options: SamplerOptions,
    suggested: Mapping[str, Any],
    name: str,
    axis: Axis,
    *,
    or_middle: bool,
) -> Any | None:
    """A parameter's value in the first trial that has it, for which no search space is known yet.

    This is the study's first trial, or the first of a branch.

    The best value of another study; else what the packs recommend, as far as the names so far
    tell; else the middle of the range, or None.

    Args:
        options: the sampler's.
        suggested: the parameters that the trial has already.
        name: the parameter.
        axis: its axis.
        or_middle: whether the middle of the range stands in for missing advice.
    """
    if not options.ablation.recommended_first:
        return None
    best = best_value(options.source_studies, name)
    if best is not None and axis.contains(best):
        return best
    knowledge = options.knowledge.relevant([*suggested, name])
    advice = advised_value(knowledge, 0, axis, name)
    # Out of range, it is most likely advice for another kind of study.
    if advice is not None and advice == knowledge.recommended_value(0, name):
        return advice
    return axis.from_unit(0.5) if or_middle else None


def advised_value(knowledge: Knowledge, index: int, axis: Axis, name: str) -> Any | None:
    """The admissible value nearest to the `index`-th recommended one; None if there is none."""
    value = knowledge.recommended_value(index, name)
    return None if value is None else axis.nearest(value)


def best_of_sources(
    space: SearchSpace, sources: Sequence[SourceObservations]
) -> list[Configuration]:
    """The best two configurations of each other study."""
    return [
        space.from_unit(point[None])[0] for point in best_configurations(sources, _N_FROM_SOURCES)
    ]


def recommended(space: SearchSpace, knowledge: Knowledge, index: int) -> Configuration:
    """The packs' `index`-th recommendation, with the middle of the range for what it lacks."""
    values = _middle(space)
    for name, axis in zip(space.names, space.axes, strict=True):
        advice = advised_value(knowledge, index, axis, name)
        if advice is not None:
            values[name] = advice
    return values


def _balanced(
    space: SearchSpace, configuration: Configuration, tried: np.ndarray
) -> Configuration:
    """The configuration with the nominal choices that are rarest among points (n, d)."""
    points = space.to_unit([configuration])
    for column, axis in enumerate(space.axes):
        if axis.is_nominal:
            n = int(axis.n_values)
            present = tried[~np.isnan(tried[:, column]), column]
            counts = np.bincount(axis.index(present), minlength=n)
            from_its_own = (axis.index(points[:, column]) + np.arange(n)) % n
            points[0, column] = (from_its_own[counts[from_its_own].argmin()] + 0.5) / n
    return space.from_unit(points)[0]


def _holds_middle(space: SearchSpace, tried: np.ndarray) -> bool:
    """Whether one of the points (n, d) is the middle of all ranges; True if there is no range."""
    ranges = [not axis.is_nominal for axis in space.axes]
    middle = space.to_unit([_middle(space)])[:, ranges]
    return not any(ranges) or bool(np.isclose(tried[:, ranges], middle).all(axis=1).any())


def is_begun(
    space: SearchSpace, configuration: Configuration, begun: Sequence[Configuration]
) -> bool:
    """Whether a running trial seems to be trying a configuration: what it has suggested so far is
    the same, but for nominal choices, of which it may take another."""
    ranges = {
        name: configuration[name]
        for name, axis in zip(space.names, space.axes, strict=True)
        if not axis.is_nominal and name in configuration
    }
    suggested = ({n: part[n] for n in ranges.keys() & part.keys()} for part in begun)
    return any(part and part.items() <= ranges.items() for part in suggested)


def _middle(space: SearchSpace) -> dict[str, Any]:
    return {name: axis.from_unit(0.5) for name, axis in zip(space.names, space.axes, strict=True)}
