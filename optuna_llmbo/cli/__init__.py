"""The command line: `optuna-llmbo tune`, `proxy-check`, `promote`, `export` and more.

Exit codes: 0; 1 for a run that failed or was interrupted; 2 for bad input.
"""

from __future__ import annotations

import typer

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
    help="Find LoRA hyperparameters with few trials on a small part of the data.",
)
for command in (tune, dashboard, report, proxy_check, promote, export, doctor, clear_cache):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    keep_to_encoding()
    app()
