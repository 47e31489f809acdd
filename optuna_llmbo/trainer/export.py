"""A trial of a trainer's study as files for the tool that trained it, or for peft."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from optuna_llmbo.embedding.language_model import model_folder
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import export
from optuna_llmbo.lora.export import Facts
from optuna_llmbo.lora.export import round_alpha
from optuna_llmbo.lora.export.from_study import n_examples_of
from optuna_llmbo.lora.export.from_study import values_text
from optuna_llmbo.lora.export.modules import names_of_modules
from optuna_llmbo.lora.export.modules import names_of_saved
from optuna_llmbo.lora.recipe import DEFAULT
from optuna_llmbo.lora.table import absolute
from optuna_llmbo.study.chosen import chosen_trial
from optuna_llmbo.study.trial_attributes import FINGERPRINT
from optuna_llmbo.trainer.configuration import Configuration
from optuna_llmbo.trainer.configuration import configuration_of
from optuna_llmbo.trainer.trl_file import TRLFile
from optuna_llmbo.trainer.trl_values import argument
from optuna_llmbo.trainer.trl_values import arguments_of


OBJECTIVE = "objective"
"""Entry of a fingerprint that trainers' objectives have, and `LoRAObjective` does not."""


@dataclass(frozen=True)
class Exported:
    """Files for a tool."""

    files: Mapping[str, str]
    """Text by name."""
    origin: tuple[str, ...]
    """Lines on where the values come from."""


def is_of_a_trainer(study: optuna.Study) -> bool:
    """Whether a study is of a `TrainerObjective` or a `TRLObjective`."""
    return OBJECTIVE in study.user_attrs.get(FINGERPRINT, {})


def to_trl(
    study: optuna.Study, file: TRLFile, trial: int | None = None, *, rounded_alpha: bool = False
) -> Exported:
    """The file that a study was made around, with the values of a trial.

    Only what the trial trains with otherwise than the file says is changed.

    Args:
        study: a study of a `TRLObjective`.
        file: its file.
        trial: its number; None: the best complete one that breaks no constraint.
        rounded_alpha: round alpha to a whole number, as TRL's files take no other.

    Raises:
        InputError: if there is no such trial, its alpha is not a whole number, or the file says
            something else now than in the search.
    """
    noted = study.user_attrs[FINGERPRINT]
    if noted.get("settings", {}).get("file") != file.settings:
        raise InputError(
            f"{str(file.path)!r} is not what the study {study.study_name!r} was made around: it "
            "has changed since. Restore it, or search again with the new one."
        )
    chosen = chosen_trial(study, trial)
    origin = [_origin(study, chosen), _held_out(noted)]
    configuration = configuration_of(chosen)
    if rounded_alpha and not configuration.recipe.lora_alpha.is_integer():
        recipe, line = round_alpha(configuration.recipe)
        configuration = dataclasses.replace(configuration, recipe=recipe)
        origin.append(line)
    values = changed_arguments(file, configuration, noted, n_examples_of(noted, chosen))
    origin.append(f"Changed are {', '.join(values) or 'no values'}; all else is as in the file.")
    head = "".join(f"# {line}\n" for line in origin)
    return Exported({file.path.name: head + file.with_values(values)}, tuple(origin))


def changed_arguments(
    file: TRLFile, configuration: Configuration, noted: Mapping[str, Any], n_examples: int
) -> dict[str, Any]:
    """The arguments of TRL that a configuration has otherwise than the file.

    Args:
        file: the file.
        configuration: what to train with.
        noted: the study's fingerprint.
        n_examples: training examples of an epoch.

    Raises:
        InputError: if TRL's files cannot express one of them.
    """
    parsed = file.parsed()
    default = dataclasses.replace(DEFAULT, **noted.get("defaults", {}))

    def layers(named: str) -> str | list[str]:
        place = model_folder(resolve_source(parsed.model.model_name_or_path))
        names = names_of_modules(place, named)
        return names if isinstance(names, str) else list(names)

    values = arguments_of(
        configuration,
        file,
        default,
        n_examples=n_examples,
        at_once=parsed.training.per_device_train_batch_size,
        layers=layers,
    )
    warmup = parsed.training.warmup_steps
    if warmup < 1 and configuration.recipe.warmup_ratio == warmup:
        del values["warmup_steps"]  # the file says the share
    if not float(values["lora_alpha"]).is_integer():
        raise InputError(
            f"lora_alpha={values['lora_alpha']:.6g}: TRL's files take whole numbers only. Round "
            "it with --round-alpha (rounded_alpha=True), or search lora_alpha as an integer."
        )
    values["lora_alpha"] = int(values["lora_alpha"])
    return {name: value for name, value in values.items() if value != argument(name, parsed)}


def to_peft(study: optuna.Study, trial: int | None = None, *, model: str | None) -> Exported:
    """The adapter of a trial as `adapter_config.json`.

    Args:
        study: a study of a trainer's objective.
        trial: its number; None: the best complete one that breaks no constraint.
        model: a hub id or a folder of the base model.

    Raises:
        InputError: if there is no such trial, or the model is not known.
    """
    if model is None:
        raise InputError(
            "the base model is loaded by your own function: say with --model where it is."
        )
    chosen = chosen_trial(study, trial)
    recipe, model = configuration_of(chosen).recipe, absolute(model)
    saved, tied = names_of_saved(model, recipe.modules_to_save)
    noted = study.user_attrs[FINGERPRINT]
    facts = Facts(
        model=model,
        recipe=recipe,
        target_modules=names_of_modules(model, recipe.target_modules),
        train=str(noted["train"]),
        n_examples=n_examples_of(noted, chosen),
        modules_to_save=saved,
        ensure_weight_tying=tied,
    )
    return Exported(export.files(facts, "peft"), (_origin(study, chosen),))


def _origin(study: optuna.Study, trial: FrozenTrial) -> str:
    said = values_text(trial, study.user_attrs[FINGERPRINT])
    return f"Trial {trial.number} of the study {study.study_name!r}: {said}."


def _held_out(noted: Mapping[str, Any]) -> str:
    rows = f"{noted['validation_examples']} rows for validation"
    if "test_examples" in noted:
        rows += f" and {noted['test_examples']} for testing"
    return (
        f"The search held out {rows}; where they are of the training split, this trains on them "
        "too."
    )
