"""`optuna-llmbo export` of a study that a trainer of the user's was searched with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from optuna_llmbo.errors import InputError
from optuna_llmbo.study.trial_attributes import OPTIONS


if TYPE_CHECKING:
    import optuna

    from optuna_llmbo.trainer.export import Exported


_USED = ("to", "out", "storage", "study", "trial", "model", "round_alpha", "overwrite")
"""Options of `export` that say something here; the trainer's file decides the others."""


def exported(context: typer.Context, study: optuna.Study, to: str) -> Exported | None:
    """The files of a trial; None if the study is not of a trainer.

    Args:
        context: with the options that were given.
        study: the study.
        to: the tool.

    Raises:
        InputError: if the tool cannot be told what the trainer does, or an option is given that
            has no effect.
    """
    from optuna_llmbo.trainer import export

    if not export.is_of_a_trainer(study):
        return None
    is_around_file = "trl" in study.user_attrs.get(OPTIONS, {})
    _check_tool(study, to, is_around_file=is_around_file)
    _check_options(context)
    trial, model = context.params["trial"], context.params["model"]
    if to == "peft":
        return export.to_peft(study, trial, model=model or _model_of(study, is_around_file))
    if model is not None:
        raise InputError("--model with --to trl: it is the file's, model_name_or_path.")
    from optuna_llmbo.cli.again import file_of

    rounded = context.params["round_alpha"]
    return export.to_trl(study, file_of(study), trial, rounded_alpha=rounded)


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


def _check_options(context: typer.Context) -> None:
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name not in _USED and source is not None and source.name != "DEFAULT":
            flag = next((one for one in parameter.opts if one.startswith("--")), name)
            raise InputError(
                f"{flag} with a study of a trainer: the trainer, or its file, decides that. Leave "
                "it out."
            )
