"""The study of a command, its sampler and its pruner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import optuna
from optuna.study import StudyDirection

from optuna_llmbo.cli.options import PrunerName
from optuna_llmbo.cli.options import SamplerName
from optuna_llmbo.errors import InputError
from optuna_llmbo.study import compat


if TYPE_CHECKING:
    from optuna_llmbo.lora.metrics import Measure
    from optuna_llmbo.sampler import LLMBOSampler


MAX_RETRIES = 3
"""Maximum retries of a trial whose process died, as the trial itself may be the cause."""


def open_storage(url: str, heartbeat: int) -> optuna.storages.BaseStorage:
    """Open a database that retries trials whose process died."""
    try:
        return compat.storage_with_heartbeat(url, heartbeat, max_retry=MAX_RETRIES)
    except Exception as error:  # each storage has its own: SQLAlchemy's, a driver's, a file's
        raise _not_opened(url, error) from error


def find_study(storage: optuna.storages.BaseStorage, name: str) -> optuna.Study | None:
    """The study of that name, or None."""
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        return None


def open_study(
    storage: optuna.storages.BaseStorage,
    name: str,
    measures: Sequence[Measure],
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
    """Load an existing study.

    Raises:
        InputError: if there is none, or the storage cannot be opened.
    """
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        raise InputError(f"there is no study {name!r} in the storage {storage!r}.") from error
    except Exception as error:  # each storage has its own: SQLAlchemy's, a driver's, a file's
        raise _not_opened(storage, error) from error


def study_names(storage: str) -> list[str]:
    """Names of the studies in a storage."""
    try:
        return optuna.get_all_study_names(storage)
    except Exception as error:  # each storage has its own: SQLAlchemy's, a driver's, a file's
        raise _not_opened(storage, error) from error


def _not_opened(storage: str, error: Exception) -> InputError:
    return InputError(
        f"cannot open the storage {storage!r}: {type(error).__name__}: "
        f"{str(error).splitlines()[0]} Expected a database URL such as sqlite:///lora.db."
    )


def make_sampler(
    name: SamplerName,
    *,
    seed: int,
    n_before: int,
    n_objectives: int,
    llm: str | None,
    task: str,
) -> optuna.samplers.BaseSampler:
    """The sampler of that name.

    Optuna's samplers draw from a stream that starts with the process; a resumed study gets another
    seed, or it would repeat its start-up points. `LLMBOSampler` handles that itself.

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
        return LLMBOSampler(llm=llm, task=None if llm is None else task, seed=seed)
    optuna_seed = seed + n_before
    if name is SamplerName.tpe:
        return optuna.samplers.TPESampler(seed=optuna_seed)
    if name is SamplerName.gp:
        return optuna.samplers.GPSampler(seed=optuna_seed)
    return optuna.samplers.RandomSampler(seed=optuna_seed)


def make_reader(llm: str | None) -> LLMBOSampler | None:
    """The sampler with whose model to look at a study, if a language model should read it."""
    if llm is None:
        return None
    from optuna_llmbo.sampler import LLMBOSampler

    return LLMBOSampler(llm=llm)


def make_pruner(name: PrunerName, reports: int, *, n_objectives: int) -> optuna.pruners.BasePruner:
    """The pruner of that name; none for several objectives, where trials report nothing."""
    if n_objectives > 1:
        return optuna.pruners.NopPruner()
    if name is PrunerName.median:
        return optuna.pruners.MedianPruner()
    if name is PrunerName.hyperband:  # a trial's resource is the percentage of its training
        return optuna.pruners.HyperbandPruner(min_resource=100 // reports, max_resource=100)
    return optuna.pruners.NopPruner()
