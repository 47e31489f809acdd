"""What all commands print to, and how they end."""

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
"""Columns of what is no terminal: no line of a file is broken."""


class Output:
    """How a command speaks: to people, or to a script, or to people only at its end.

    Args:
        quiet: only the result, and on standard error the errors.
        json: standard output is JSON lines and nothing else.

    Raises:
        InputError: if it is to be both.
    """

    def __init__(self, *, quiet: bool = False, json: bool = False) -> None:
        if quiet and json:
            raise InputError("--quiet and --json: expected one of them; --json alone is quiet.")
        self.is_quiet = quiet or json
        self._is_json = json
        self.progress = Console(quiet=self.is_quiet)
        """For what is of interest on the way."""

    def say(self, text: str) -> None:
        """Something of interest on the way."""
        self.progress.print(Text(text), soft_wrap=True)

    def training(self, what: str) -> None:
        """That a configuration is trained now."""
        self.say(f"Training {what} ...")
        self.event("training", {"what": what})

    def result(self, *parts: RenderableType) -> None:
        """The end of it, for people."""
        if self._is_json:
            return
        for part in parts:
            if isinstance(part, (str, Text)):
                out.print(Text(part) if isinstance(part, str) else part, soft_wrap=True)
            else:
                show(part)

    def event(self, name: str, facts: Mapping[str, Any]) -> None:
        """One line of JSON, for scripts; numbers that are not finite are null."""
        if self._is_json:
            typer.echo(json.dumps(plain({"event": name, **facts}), allow_nan=False))


def show(table: RenderableType) -> None:
    """Print a table as wide as it is, unless a terminal is narrower."""
    is_terminal = out.file.isatty()
    out.print(table, width=None if is_terminal else _UNBOUNDED, crop=is_terminal)


def plain(value: Any) -> Any:
    """What JSON can say: keys as texts, sequences as lists, null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def keep_to_encoding() -> None:
    """Have characters that a stream's encoding lacks written as escapes, not end the command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def warn(text: str) -> None:
    """On standard error, above what is live on a terminal."""
    sys.stderr.write(f"{text}\n")  # a console of its own would write into it


@contextmanager
def bad_input_exits_with_2() -> Iterator[None]:
    """Turn an InputError into its message and exit code 2."""
    try:
        yield
    except InputError as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(2) from error
