"""`optuna-llmbo report`: write a study as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rich.markup import escape
import typer

from optuna_llmbo.cli import options
from optuna_llmbo.cli.terminal import bad_input_exits_with_2
from optuna_llmbo.cli.terminal import out as terminal


def report(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File to write; an existing one is replaced.")
    ] = Path("report.html"),
    storage: options.Storage = "sqlite:///lora.db",
    llm: options.ReadingModel = None,
    proxy_check: options.ProxyCheckFolder = None,
) -> None:
    """Write a study as one HTML file that needs no network: figures, tables, versions."""
    with bad_input_exits_with_2():
        from optuna_llmbo.cli import studies
        from optuna_llmbo.report import write_report

        path = write_report(
            studies.load_study(storage, study),
            out,
            studies.make_reader(llm),
            proxy_check=proxy_check,
        )
    terminal.print(f"Wrote {escape(str(path))}", soft_wrap=True)
