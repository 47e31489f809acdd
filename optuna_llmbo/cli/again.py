"""The objective that a study was made with, for commands that are run after the search."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

from optuna_llmbo.cli import options
from optuna_llmbo.cli import tune_trl
from optuna_llmbo.errors import InputError
from optuna_llmbo.study.trial_attributes import COMMAND
from optuna_llmbo.study.trial_attributes import OPTIONS
from optuna_llmbo.study.trial_attributes import WORKING_FOLDER


if TYPE_CHECKING:
    import optuna

    from optuna_llmbo.promotable import PromotableObjective
    from optuna_llmbo.trainer.trl_file import TRLFile


def objective_of(
    study: optuna.Study, *, device: str | None, allow_execution: bool
) -> PromotableObjective:
    """The objective of a study that `tune` made.

    Args:
        study: the study.
        device: where to train; None: as by default.
        allow_execution: whether the metric may run generated programs.

    Raises:
        InputError: if `tune` did not make it, what it was made with is not there any more, or an
            option says what TRL's file decides.
    """
    if COMMAND in study.user_attrs:
        raise InputError(
            f"the study {study.study_name!r} was made with a program of your own, which "
            "optuna-llmbo does not know how to train on all of the data: `optuna-llmbo export` "
            "writes its configuration with the best values. Run it with that, and several seeds."
        )
    given = options.recorded(study)
    if "trl" not in given:
        return options.objective_of(given, allow_execution=allow_execution, device=device)
    if allow_execution:
        raise InputError("--allow-execution with a study around TRL's file: it runs no programs.")
    if device is not None:
        raise InputError(
            f"--device {device} with a study around TRL's file: there it is the environment that "
            "says it, such as CUDA_VISIBLE_DEVICES."
        )
    from optuna_llmbo.trainer.quiet import quiet_libraries

    quiet_libraries()
    return tune_trl.objective_of({**given, "trl": file_of(study)})


def file_of(study: optuna.Study) -> TRLFile:
    """TRL's file that a study was made around: as it is now, or as it was then if it is gone.

    Raises:
        InputError: if there is none, or what it names lies elsewhere.
    """
    from optuna_llmbo.trainer.trl_file import parse_trl_file
    from optuna_llmbo.trainer.trl_file import read_trl_file

    given: dict[str, Any] = options.recorded(study)
    if "trl" not in given:
        raise InputError(f"the study {study.study_name!r} was not made by `tune --trl`.")
    place, task = Path(given["trl"]), given["trl_task"]
    if place.exists():
        file = read_trl_file(place, task)
    else:
        file = parse_trl_file(given["trl_text"], place, task)
    _check_places(file, str(study.user_attrs[OPTIONS].get(WORKING_FOLDER, "")))
    return file


def _check_places(file: TRLFile, folder: str) -> None:
    """Check that relative paths in a file are meant from here, not from where `tune` was run."""
    mixture = file.given.get("datasets")
    of_mixture = [one.get("path") for one in mixture] if isinstance(mixture, list) else []
    for name in ("model_name_or_path", "dataset_name"):
        of_mixture.append(file.given.get(name))
    for place in of_mixture:
        if isinstance(place, str) and not Path(place).exists() and Path(folder, place).exists():
            raise InputError(
                f"{str(file.path)!r} names {place!r}, which lies in {folder!r}, where `tune` was "
                "run: run this command there too."
            )
