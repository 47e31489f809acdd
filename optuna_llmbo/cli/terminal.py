"""Output and exit codes of all commands."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
import json
import math
import sys
from typing import Any

from rich.console import Console
from rich.console import RenderableType
from rich.markup import escape
from rich.text import Text
import typer

from optuna_llmbo.errors import InputError


out = Console()
errors = Console(stderr=True)

_UNBOUNDED = 10_000
"""Columns when the output is not a terminal, so that no line of a file is broken."""


class Output:
    """Output of a command, for people or for scripts.

    Args:
        quiet: print only the result, and errors to standard error.
        json: print JSON lines to standard output and nothing else.

    Raises:
        InputError: if both are set.
    """

    def __init__(self, *, quiet: bool = False, json: bool = False) -> None:
        if quiet and json:
            raise InputError("--quiet and --json: expected one of them; --json alone is quiet.")
        self.is_quiet = quiet or json
        self._is_json = json
        self.progress = Console(quiet=self.is_quiet)
        """Console for progress messages."""

    def say(self, text: str) -> None:
        """Print a progress message."""
        self.progress.print(Text(text), soft_wrap=True)

    def training(self, what: str) -> None:
        """Announce the training of a configuration."""
        self.say(f"Training {what} ...")
        self.event("training", {"what": what})

    def result(self, *parts: RenderableType) -> None:
        """Print the result for people."""
        if self._is_json:
            return
        for part in parts:
            if isinstance(part, (str, Text)):
                out.print(Text(part) if isinstance(part, str) else part, soft_wrap=True)
            else:
                show(part)

    def event(self, name: str, facts: Mapping[str, Any]) -> None:
        """Print one line of JSON for scripts; non-finite numbers become null."""
        if self._is_json:
            typer.echo(json.dumps(plain({"event": name, **facts}), allow_nan=False))


def show(table: RenderableType) -> None:
    """Print a table at its full width, or at the terminal's if that is narrower."""
    is_terminal = out.file.isatty()
    out.print(table, width=None if is_terminal else _UNBOUNDED, crop=is_terminal)


def plain(value: Any) -> Any:
    """Convert to JSON values: keys to strings, sequences to lists, non-finite numbers to null."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def keep_to_encoding() -> None:
    """Write characters that a stream's encoding lacks as escapes instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def warn(text: str) -> None:
    """Print to standard error, above a live view."""
    sys.stderr.write(f"{text}\n")  # a separate console would write into the live view


@contextmanager
def bad_input_exits_with_2() -> Iterator[None]:
    """Turn an InputError into its message and exit code 2."""
    try:
        yield
    except InputError as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(2) from error
