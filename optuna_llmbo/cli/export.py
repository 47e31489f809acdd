"""`optuna-llmbo export`: write a trial of a study as files that fine-tuning tools load."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from rich.markup import escape
import typer

from optuna_llmbo.cli import options
from optuna_llmbo.cli.terminal import bad_input_exits_with_2
from optuna_llmbo.cli.terminal import out as terminal
from optuna_llmbo.errors import InputError


class Tool(StrEnum):
    """Tool that the files are for."""

    peft = "peft"
    trl = "trl"
    llamafactory = "llamafactory"
    axolotl = "axolotl"
    unsloth = "unsloth"
    own = "own"


class Dtype(StrEnum):
    """Type of the base model's weights."""

    bfloat16 = "bfloat16"
    float32 = "float32"


def export(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the files, new or empty.")],
    to: Annotated[
        Tool | None,
        typer.Option(
            help="Tool to write files for; own: the file that `tune --trl` or `search` was given, "
            "which is the default there."
        ),
    ] = None,
    storage: options.Storage = "sqlite:///lora.db",
    study: options.StudyName = "lora",
    trial: Annotated[
        int | None, typer.Option(help="Number of the trial. Default: the best one.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Hub id or folder. Default: as given to `tune`."),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(help="File or hub id. Default: as given to `tune`."),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            help="As --train, or how much of it to split off, as in `tune`. Default: no "
            "evaluation.",
            parser=options.source,
            metavar="DATA|COUNT|SHARE",
        ),
    ] = None,
    prompt_column: options.PromptColumn = None,
    response_column: options.ResponseColumn = None,
    ignore_columns: options.IgnoreColumns = [],  # noqa: B006 - typer copies it
    examples: Annotated[
        int | None,
        typer.Option(
            help="Number of examples in --train. Default: as in the study (without the proxy)."
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over --train. Default: as in the trial.")
    ] = None,
    micro_batch_size: Annotated[
        int, typer.Option(help="Maximum number of examples in memory at once.")
    ] = 8,
    dtype: Annotated[
        Dtype | None, typer.Option(help="Type of the base model. Default: as in the study.")
    ] = None,
    round_alpha: Annotated[
        bool,
        typer.Option(
            "--round-alpha", help="Round alpha to a whole number, where the tool needs one."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files in --out.")
    ] = False,
) -> None:
    """Write a trial's configuration as files that a fine-tuning tool loads.

    Of a study that `tune --trl` or `search` made, this is the file that it was given, with the
    trial's values.
    """
    with bad_input_exits_with_2():
        from optuna_llmbo.cli import studies
        from optuna_llmbo.cli.own_files import own_files
        from optuna_llmbo.lora.export import write
        from optuna_llmbo.lora.export import write_files
        from optuna_llmbo.lora.export.from_study import facts_of

        the_study = studies.load_study(storage, study)
        own = own_files(context, the_study, None if to is None else to.value)
        if own is not None:
            _tell(own.to, own.origin, write_files(own.files, out, overwrite=overwrite))
            return
        if to is None:
            raise InputError(
                "--to is missing: name the tool that the files are for: peft, trl, llamafactory, "
                "axolotl or unsloth."
            )
        facts = facts_of(
            the_study,
            trial,
            model=model,
            train=train,
            epochs=epochs,
            rounded_alpha=round_alpha,
            validation=validation,
            prompt_column=prompt_column,
            response_column=response_column,
            ignore_columns=tuple(ignore_columns) or None,
            n_examples=examples,
            micro_batch_size=micro_batch_size,
            dtype=None if dtype is None else dtype.value,
        )
        paths = write(facts, to.value, out, overwrite=overwrite)
    _tell(to.value, facts.origin, paths)


def _tell(to: str, origin: Sequence[str], paths: Sequence[Path]) -> None:
    """Print where the values come from, and what was written."""
    for line in origin:
        terminal.print(escape(line), soft_wrap=True)
    for path in paths:
        terminal.print(f"Wrote {escape(str(path))}", soft_wrap=True)
    if to == Tool.peft.value:
        terminal.print(
            "The file describes the adapter. How to train it (learning rate, batch, schedule) "
            "is no part of it.",
            soft_wrap=True,
        )
