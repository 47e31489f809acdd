"""`optuna-llmbo proxy-check`: how much of the data a search needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from optuna_llmbo.cli import options
from optuna_llmbo.cli.terminal import bad_input_exits_with_2
from optuna_llmbo.cli.terminal import Output
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.options import ObjectiveOptions


def proxy_check(
    context: typer.Context,
    model: options.Model,
    train: options.Train,
    out: Annotated[
        Path, typer.Option(help="Folder for the fits and the report; resumes if it exists.")
    ],
    configs: Annotated[
        int, typer.Option(help="Number of configurations, the default first.", min=4)
    ] = 12,
    fractions: Annotated[
        str, typer.Option(help="Fractions of the training examples, comma-separated.")
    ] = "0.01,0.05,0.1,0.3",
    figure: Annotated[
        bool, typer.Option("--figure", help="Also plot to proxy-check.svg in --out (matplotlib).")
    ] = False,
    validation: options.Validation = None,
    test: options.Test = None,
    prompt_column: options.PromptColumn = None,
    response_column: options.ResponseColumn = None,
    ignore_columns: options.IgnoreColumns = [],  # noqa: B006 - typer copies it
    proxy_by: options.ProxyBy = ObjectiveOptions.proxy_by,
    space: options.Space = None,
    variant: options.Variant = ObjectiveOptions.variant,
    epochs: options.Epochs = ObjectiveOptions.epochs,
    max_length: options.MaxLength = ObjectiveOptions.max_length,
    truncation: options.Truncation = ObjectiveOptions.truncation,
    chat_template: options.ChatTemplate = None,
    train_on: options.TrainOn = ObjectiveOptions.train_on,
    micro_batch_size: options.MicroBatchSize = ObjectiveOptions.micro_batch_size,
    quantization: options.Quantization = None,
    gradient_checkpointing: options.GradientCheckpointing = False,
    seed: options.Seed = ObjectiveOptions.seed,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Train the same configurations on parts of the data and on all of it; compare the losses."""
    with bad_input_exits_with_2():
        from optuna_llmbo.cli import events
        from optuna_llmbo.lora import proxy_agreement
        from optuna_llmbo.lora.checkpoint import check_writable
        from optuna_llmbo.lora.proxy_check import check_proxy

        output = Output(quiet=quiet, json=as_json)

        shares = _shares(fractions)
        about = options.chosen(context.params)
        # the space is sized for all data; the check drops batches that do not fit a part
        objective = options.objective_of(about, proxy=1.0, device=device)
        check_writable(out)
        output.say("Loading the model and the data ...")
        objective.prepare()
        check = check_proxy(
            objective,
            folder=out,
            fractions=shares,
            n_configs=configs,
            seed=seed,
            tell=output.training,
        )
        report = proxy_agreement.report(check)
        proxy_agreement.save_check(check, out)
        (out / "proxy-check.md").write_text(report + "\n")
        if figure:
            proxy_agreement.draw(check, out / "proxy-check.svg")
    output.result(report)
    output.event("summary", events.checked(check))


def _shares(text: str) -> list[float]:
    try:
        return [float(share) for share in text.split(",")]
    except ValueError as error:
        raise InputError(
            f"fractions: expected numbers and commas, such as 0.05,0.1; got {text!r}."
        ) from error
