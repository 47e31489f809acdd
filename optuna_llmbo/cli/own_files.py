"""`optuna-llmbo export` of a study that something of the user's trains: a trainer or a program."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from optuna_llmbo.errors import InputError
from optuna_llmbo.study.trial_attributes import OPTIONS


if TYPE_CHECKING:
    import optuna


OWN = "own"
"""What the user trains with, as a tool."""
_USED = ("to", "out", "storage", "study", "trial", "model", "round_alpha", "overwrite")
"""Options of `export` that say something of a trainer's study; its file decides the others."""
_USED_OF_A_COMMAND = ("to", "out", "storage", "study", "trial", "overwrite")


@dataclass(frozen=True)
class Own:
    """Files for what the user trains with."""

    to: str
    """The tool."""
    files: Mapping[str, str]
    """Text by name."""
    origin: tuple[str, ...]
    """Lines on where the values come from."""


def own_files(context: typer.Context, study: optuna.Study, to: str | None) -> Own | None:
    """The files of a trial; None if `LoRAObjective` trained it.

    Args:
        context: with the options that were given.
        study: the study.
        to: the tool; None: what the user trains with.

    Raises:
        InputError: if the tool cannot be told what the user's does, or an option is given that has
            no effect.
    """
    from optuna_llmbo.command.export import is_of_a_command
    from optuna_llmbo.trainer.export import is_of_a_trainer

    if is_of_a_command(study):
        return _of_a_command(context, study, to)
    if is_of_a_trainer(study):
        return _of_a_trainer(context, study, to)
    if to == OWN:
        raise InputError(
            f"--to own: the study {study.study_name!r} has no file of its own. Name the tool: "
            "--to peft, trl, llamafactory, axolotl or unsloth."
        )
    return None


def _of_a_command(context: typer.Context, study: optuna.Study, to: str | None) -> Own:
    from optuna_llmbo.command.export import own_config

    if to not in (None, OWN):
        raise InputError(
            f"--to {to}: the study {study.study_name!r} was made with a program of your own, "
            "whose configuration is not known to be about a LoRA adapter. --to own writes that "
            "configuration with the trial's values."
        )
    _check_options(context, _USED_OF_A_COMMAND, "the program, or its configuration,")
    made = own_config(study, context.params["trial"])
    return Own(OWN, {made.name: made.text}, made.origin)


def _of_a_trainer(context: typer.Context, study: optuna.Study, to: str | None) -> Own:
    from optuna_llmbo.cli.again import file_of
    from optuna_llmbo.trainer import export

    is_around_file = "trl" in study.user_attrs.get(OPTIONS, {})
    to = "trl" if to in (None, OWN) and is_around_file else to or OWN
    _check_tool(study, to, is_around_file=is_around_file)
    _check_options(context, _USED, "the trainer, or its file,")
    trial, model = context.params["trial"], context.params["model"]
    if to == "peft":
        made = export.to_peft(study, trial, model=model or _model_of(study, is_around_file))
        return Own(to, made.files, made.origin)
    if model is not None:
        raise InputError("--model with --to trl: it is the file's, model_name_or_path.")
    rounded = context.params["round_alpha"]
    made = export.to_trl(study, file_of(study), trial, rounded_alpha=rounded)
    return Own(to, made.files, made.origin)


def _model_of(study: optuna.Study, is_around_file: bool) -> str | None:
    """Where the base model is, if TRL's file says it."""
    from optuna_llmbo.cli.again import file_of

    return str(file_of(study).given["model_name_or_path"]) if is_around_file else None


def _check_tool(study: optuna.Study, to: str, *, is_around_file: bool) -> None:
    if to == "peft" or (to == "trl" and is_around_file):
        return
    name = study.study_name
    if is_around_file:
        raise InputError(
            f"--to {to}: the study {name!r} was made around TRL's file, whose data, packing and "
            f"masks of the loss {to} cannot be told without loss. --to trl writes that file with "
            "the trial's values, --to peft the adapter."
        )
    raise InputError(
        f"--to {to}: the study {name!r} was made with a trainer of your own, which no file "
        "describes. --to peft writes the adapter; in Python, "
        "objective.configuration_of(trial).recipe has all values, and lora_config, sft_config and "
        "dpo_config of optuna_llmbo.trainer make configurations of them."
    )


def _check_options(context: typer.Context, used: Collection[str], who: str) -> None:
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name not in used and source is not None and source.name != "DEFAULT":
            flag = next((one for one in parameter.opts if one.startswith("--")), name)
            raise InputError(f"{flag}: in this study {who} decides that. Leave it out.")
