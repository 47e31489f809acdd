"""A trial of a command's study, as the command's own configuration with the trial's values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from optuna_llmbo.command.settings_file import SettingsFile
from optuna_llmbo.errors import InputError
from optuna_llmbo.study.chosen import chosen_trial
from optuna_llmbo.study.trial_attributes import COMMAND
from optuna_llmbo.study.trial_attributes import FINGERPRINT
from optuna_llmbo.study.trial_attributes import TRIAL_CONFIG
from optuna_llmbo.study.trial_attributes import TRIAL_FOLDER


@dataclass(frozen=True)
class ExportedConfig:
    """A configuration for the command."""

    name: str
    text: str
    origin: tuple[str, ...]
    """Lines on where the values come from, and what is still the trial's own."""


def is_of_a_command(study: optuna.Study) -> bool:
    """Whether a study is of a `CommandObjective`."""
    return COMMAND in study.user_attrs


def own_config(study: optuna.Study, trial: int | None = None) -> ExportedConfig:
    """The configuration that a trial's command has read.

    Args:
        study: a study of a `CommandObjective`.
        trial: its number; None: the best complete one that breaks no constraint.

    Raises:
        InputError: if there is no such trial, or it has no configuration any more.
    """
    chosen = chosen_trial(study, trial)
    place, command = chosen.user_attrs.get(TRIAL_CONFIG), study.user_attrs[COMMAND]
    if place is None:
        raise InputError(
            f"the command of the study {study.study_name!r} reads no configuration: run "
            f"{command!r} with {_params(chosen)}."
        )
    path = Path(place)
    if not path.is_file():
        raise InputError(
            f"the configuration of trial {chosen.number} is not at {place!r} any more: set "
            f"{_params(chosen)} in your own."
        )
    metric = study.user_attrs[FINGERPRINT]["metric"]
    said = f"{metric} {chosen.value:.6g}"
    origin = [f"Trial {chosen.number} of the study {study.study_name!r}: {said}."]
    file = SettingsFile(path)
    if own := _of_the_folder(file.leaves(), str(chosen.user_attrs[TRIAL_FOLDER])):
        origin.append(f"In the trial's own folder, and to be changed: {', '.join(own)}.")
    origin.append(f"The command was: {' '.join(command.split())}")
    text = path.read_text(encoding="utf-8")
    if path.suffix.lower() != ".json":  # which has no comments
        text = "".join(f"# {line}\n" for line in origin) + text
    return ExportedConfig(path.name, text, tuple(origin))


def _params(trial: FrozenTrial) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in trial.params.items())


def _of_the_folder(leaves: dict[str, Any], folder: str) -> list[str]:
    """Keys whose values name the trial's folder, such as where the command writes to."""
    return [key for key, value in leaves.items() if folder in str(value)]
