"""What all commands print to, and how they end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
import typer

from optuna_llmbo.errors import InputError


out = Console()
errors = Console(stderr=True)


@contextmanager
def bad_input_exits_with_2() -> Iterator[None]:
    """Turn an InputError into its message and exit code 2."""
    try:
        yield
    except InputError as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(2) from error
