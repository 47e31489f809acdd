"""`optuna-llmbo export`: a trial of a study as files that fine-tuning tools load."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import optuna
from rich.markup import escape
import typer

from optuna_llmbo.errors import InputError
from optuna_llmbo.terminal import bad_input_exits_with_2
from optuna_llmbo.terminal import out as _out


class Tool(StrEnum):
    """Which tool the files are for."""

    peft = "peft"
    trl = "trl"
    llamafactory = "llamafactory"
    axolotl = "axolotl"
    unsloth = "unsloth"


class Dtype(StrEnum):
    """In which type the base model is trained."""

    bfloat16 = "bfloat16"
    float32 = "float32"


def export(
    to: Tool = typer.Option(..., help="The tool."),
    out: Path = typer.Option(..., help="Folder for the files: new or empty."),
    storage: str = typer.Option("sqlite:///lora.db", help="Where Optuna keeps the study."),
    study: str = typer.Option("lora", help="The study's name."),
    trial: int | None = typer.Option(None, help="The trial's number; default: the best one."),
    model: str | None = typer.Option(
        None, help="Hub id or folder; default: as the study notes it, of a folder the name."
    ),
    train: str | None = typer.Option(
        None, help="File or dataset's hub id; default: as the study notes it, of a file the name."
    ),
    validation: str | None = typer.Option(None, help="As --train; default: no evaluation."),
    prompt_column: str | None = typer.Option(None, help="Column with the prompts."),
    response_column: str | None = typer.Option(None, help="Column with the responses."),
    examples: int | None = typer.Option(
        None, help="How many --train has; default: as in the study, before the proxy was drawn."
    ),
    epochs: int | None = typer.Option(None, help="Passes over --train; default: as in the trial."),
    micro_batch_size: int = typer.Option(8, help="Most examples in memory at once."),
    dtype: Dtype | None = typer.Option(None, help="Of the base model; default: as in the study."),
    round_alpha: bool = typer.Option(
        False, "--round-alpha", help="Take the nearest whole alpha, where the tool needs one."
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace files in --out."),
) -> None:
    """Write a trial's configuration as files that a fine-tuning tool loads."""
    with bad_input_exits_with_2():
        from optuna_llmbo.lora.export import write
        from optuna_llmbo.lora.export.from_study import facts_of

        facts = facts_of(
            _load_study(storage, study),
            trial,
            model=model,
            train=train,
            epochs=epochs,
            rounded_alpha=round_alpha,
            validation=validation,
            prompt_column=prompt_column,
            response_column=response_column,
            n_examples=examples,
            micro_batch_size=micro_batch_size,
            dtype=None if dtype is None else dtype.value,
        )
        paths = write(facts, to.value, out, overwrite=overwrite)
    for line in facts.origin:
        _out.print(escape(line), soft_wrap=True)
    for path in paths:
        _out.print(f"Wrote {escape(str(path))}", soft_wrap=True)
    if to is Tool.peft:
        _out.print(
            "The file describes the adapter. How it is trained (learning rate, batch, schedule) "
            "is no part of it.",
            soft_wrap=True,
        )


def _load_study(storage: str, name: str) -> optuna.Study:
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        raise InputError(f"there is no study {name!r} in the storage {storage!r}.") from error
    except Exception as error:  # each storage has its own: SQLAlchemy's, a driver's, a file's
        raise InputError(
            f"cannot open the storage {storage!r}: {type(error).__name__}: "
            f"{str(error).splitlines()[0]} Expected a database URL such as sqlite:///lora.db."
        ) from error
