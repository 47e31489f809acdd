"""`optuna-llmbo promote`: train the best configurations of a study on all of the data."""

from __future__ import annotations

from pathlib import Path
import statistics
from typing import Annotated
from typing import TYPE_CHECKING

from rich.table import Table
import typer

from optuna_llmbo.cli import options
from optuna_llmbo.cli.terminal import bad_input_exits_with_2
from optuna_llmbo.cli.terminal import Output


if TYPE_CHECKING:
    from optuna_llmbo.promotion import Promotion


def promote(
    out: Annotated[
        Path, typer.Option(help="Folder for the adapter and the numbers; resumes if it exists.")
    ],
    storage: options.Storage = "sqlite:///lora.db",
    study: options.StudyName = "lora",
    top: Annotated[int, typer.Option(help="Number of configurations to train.", min=1)] = 3,
    seeds: Annotated[int, typer.Option(help="Number of seeds for each configuration.", min=1)] = 3,
    merge: Annotated[
        bool,
        typer.Option(
            "--merge",
            help="Also write the base model with the adapter in its weights, which transformers "
            "loads without peft.",
        ),
    ] = False,
    device: options.Device = None,
    allow_execution: options.AllowExecution = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Train the best configurations on all data, several seeds each, and save the best adapter.

    The default configuration is trained as a control. The test data held out by `tune --test` are
    read once, by the winner and the default.
    """
    with bad_input_exits_with_2():
        from optuna_llmbo.cli import again
        from optuna_llmbo.cli import events
        from optuna_llmbo.cli import studies
        from optuna_llmbo.lora.checkpoint import check_writable
        from optuna_llmbo.promote import promote as run

        output = Output(quiet=quiet, json=as_json)
        the_study = studies.load_study(storage, study)
        objective = again.objective_of(the_study, device=device, allow_execution=allow_execution)
        check_writable(out)
        output.say("Loading the model and the data ...")
        result = run(
            the_study,
            objective,
            folder=out,
            top=top,
            n_seeds=seeds,
            merge=merge,
            tell=output.training,
        )
    output.result(_table(result), f"The adapter: {result.adapter}", *_merged(result))
    output.event("summary", events.promoted(result))


def _table(result: Promotion) -> Table:
    from optuna_llmbo.promotion import mean_and_deviation

    table = Table(title=f"After training on all data: {result.goal.heading}")
    for column in ("", "validation", "test", "gain over default"):
        table.add_column(column, justify="right" if column else "left")
    for one in result.contenders:
        name = "default" if one is result.default else f"trial {one.trial}"
        name, gain = (f"{name} (winner)", _gain(result)) if one is result.winner else (name, "")
        table.add_row(name, *map(mean_and_deviation, (one.validation, one.test)), gain)
    return table


def _merged(result: Promotion) -> list[str]:
    from optuna_llmbo.lora.merge import what_is_lost

    merged = result.merged
    if merged is None:
        return []
    return [f"The merged model: {merged.folder}", what_is_lost(merged)]


def _gain(result: Promotion) -> str:
    """Gain of the winner's mean over the default's, on the test data if there are any."""
    winner, default = result.winner, result.default
    if default is None or winner is default:
        return ""
    ours, theirs = (statistics.fmean(c.test or c.validation) for c in (winner, default))
    return f"{result.goal.better(ours, theirs):+.4f}"
