"""The study of a command, its sampler and its pruner."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import optuna
from optuna.study import StudyDirection

from optuna_llmbo.cli import storages
from optuna_llmbo.cli.options import model_named
from optuna_llmbo.cli.options import PrunerName
from optuna_llmbo.cli.options import SamplerName
from optuna_llmbo.errors import InputError
from optuna_llmbo.study import compat
from optuna_llmbo.study.progress import MetricLike


if TYPE_CHECKING:
    from optuna_llmbo.sampler import LLMBOSampler
    from optuna_llmbo.study.progress import MetricLike


def find_study(storage: optuna.storages.BaseStorage, name: str) -> optuna.Study | None:
    """The study of that name, or None."""
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        return None


def open_study(
    storage: optuna.storages.BaseStorage,
    name: str,
    measures: Sequence[MetricLike],
    sampler: optuna.samplers.BaseSampler,
    pruner: optuna.pruners.BasePruner,
) -> optuna.Study:
    """Create or load a study; trials whose process died are retried."""
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=[StudyDirection[one.direction.upper()] for one in measures],
        sampler=sampler,
        pruner=pruner,
        load_if_exists=True,
    )
    compat.name_metrics(study, [one.name for one in measures])
    compat.retry_stale_trials(study)
    return study


def load_study(storage: str, name: str) -> optuna.Study:
    """Load an existing study of the storage that an option names.

    Raises:
        InputError: if there is none, or the storage cannot be opened.
    """
    return study_in(storages.read_storage(storage), name)


def study_in(storage: optuna.storages.BaseStorage, name: str) -> optuna.Study:
    """Load an existing study.

    Raises:
        InputError: if there is none.
    """
    study = find_study(storage, name)
    if study is None:
        there = ", ".join(map(repr, optuna.get_all_study_names(storage)))
        raise InputError(
            f"there is no study {name!r} in the storage; "
            + (f"it has {there}." if there else "it has none.")
        )
    return study


def make_sampler(
    name: SamplerName,
    *,
    seed: int,
    n_objectives: int,
    llm: str | None,
    task: str,
) -> optuna.samplers.BaseSampler:
    """The sampler of that name.

    Raises:
        InputError: if there is no such language model, or there are too many objectives.
    """
    if name is SamplerName.llmbo:
        from optuna_llmbo.sampler import LLMBOSampler
        from optuna_llmbo.suggestion.engine import MAX_OBJECTIVES

        if n_objectives > MAX_OBJECTIVES:
            raise InputError(
                f"--sampler llmbo takes at most {MAX_OBJECTIVES} metrics, got {n_objectives}: "
                "leave some out, or take --sampler tpe."
            )
        model = model_named(llm)
        return LLMBOSampler(llm=model, task=None if model is None else task, seed=seed)
    return _OPTUNAS[name](seed=seed)


_OPTUNAS: dict[SamplerName, Callable[..., optuna.samplers.BaseSampler]] = {
    SamplerName.tpe: optuna.samplers.TPESampler,
    SamplerName.gp: optuna.samplers.GPSampler,
    SamplerName.random: optuna.samplers.RandomSampler,
}


def for_trial(
    name: SamplerName, sampler: optuna.samplers.BaseSampler, seed: int, number: int
) -> optuna.samplers.BaseSampler:
    """The sampler for one trial.

    Optuna's samplers draw from a stream that starts with the process. Two workers, or a study that
    is resumed, would draw the same numbers again, so that each trial gets a seed of its own.
    `LLMBOSampler` handles that itself.
    """
    if name is SamplerName.llmbo:
        return sampler
    own = np.random.SeedSequence((seed, number)).generate_state(1)
    return _OPTUNAS[name](seed=int(own[0]))


def make_reader(llm: str | None) -> LLMBOSampler | None:
    """The sampler with whose model to look at a study, if a language model should read it."""
    if llm is None:
        return None
    from optuna_llmbo.sampler import LLMBOSampler

    return LLMBOSampler(llm=model_named(llm))


def make_pruner(name: PrunerName, reports: int, *, n_objectives: int) -> optuna.pruners.BasePruner:
    """The pruner of that name; none for several objectives, where trials report nothing."""
    if n_objectives > 1:
        return optuna.pruners.NopPruner()
    if name is PrunerName.median:
        return optuna.pruners.MedianPruner()
    if name is PrunerName.hyperband:  # a trial's resource is the percentage of its training
        return optuna.pruners.HyperbandPruner(min_resource=100 // reports, max_resource=100)
    return optuna.pruners.NopPruner()
