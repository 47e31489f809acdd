"""The command line: `optuna-llmbo tune`, `search`, `proxy-check`, `promote`, `export` and more.

Exit codes: 0; 1 for a run that failed or was interrupted; 2 for bad input.
"""

from __future__ import annotations

from typing import Annotated

import typer

from optuna_llmbo._util.versions import version_of
from optuna_llmbo.cli.command import search as search_command
from optuna_llmbo.cli.dashboard import dashboard
from optuna_llmbo.cli.doctor import clear_cache
from optuna_llmbo.cli.doctor import doctor
from optuna_llmbo.cli.export import export
from optuna_llmbo.cli.promote import promote
from optuna_llmbo.cli.proxy_check import proxy_check
from optuna_llmbo.cli.report import report
from optuna_llmbo.cli.terminal import keep_to_encoding
from optuna_llmbo.cli.tune import tune


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    tune,
    search_command,
    dashboard,
    report,
    proxy_check,
    promote,
    export,
    doctor,
    clear_cache,
):
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(version_of("optuna-llmbo"))
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_version),
    ] = False,
) -> None:
    """Find LoRA hyperparameters with few trials on a small part of the data."""


def main() -> None:
    """Run the command line."""
    keep_to_encoding()
    app()
