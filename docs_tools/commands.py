"""MkDocs hook that writes the reference of the command line from the commands themselves.

It replaces `<!-- commands -->` in a page with each command's help and options.
"""

from __future__ import annotations

from enum import EnumType
import inspect
from pathlib import Path
from types import NoneType
from types import UnionType
from typing import Any
from typing import get_args
from typing import get_origin
from typing import get_type_hints

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page
import typer

from optuna_llmbo import cli


MARK = "<!-- commands -->"

_TAKES = {str: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH"}


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Insert the reference at the page's mark."""
    return markdown.replace(MARK, reference()) if MARK in markdown else markdown


def commands() -> dict[str, Any]:
    """Return the commands by name, as made by Typer."""
    group: Any = typer.main.get_command(cli.app)
    return dict(group.commands)


def reference() -> str:
    """Format all commands as Markdown."""
    return "\n\n".join(_command(name, command) for name, command in commands().items())


def _command(name: str, command: Any) -> str:
    types = get_type_hints(inspect.unwrap(command.callback))
    rows = [_row(option, types[option.name]) for option in command.params]
    head = ["| option | default | what it is |", "| --- | --- | --- |"]
    return "\n".join([f"## optuna-llmbo {name}", "", command.help, "", *head, *rows])


def _row(option: Any, annotation: Any) -> str:
    is_argument = option.param_type_name == "argument"
    names = [option.name.upper()] if is_argument else [*option.opts, *option.secondary_opts]
    flags = ", ".join(f"`{name}`" for name in names)
    kind = _kind(annotation)
    text = option.help or (inspect.getdoc(kind) if isinstance(kind, EnumType) else "")
    cells = (f"{flags} {_takes(option, kind)}", _default(option), text or "")
    return "| " + " | ".join(cell.replace("|", "\\|").strip() for cell in cells) + " |"


def _is_flag(option: Any) -> bool:
    return bool(getattr(option, "is_flag", False))


def _kind(annotation: Any) -> Any:
    """Return an option's type without None; for an option given several times, its items'."""
    several = isinstance(annotation, UnionType) or get_origin(annotation) is list
    kinds = get_args(annotation) if several else (annotation,)
    return next(one for one in kinds if one is not NoneType)


def _takes(option: Any, kind: Any) -> str:
    """Describe the value that an option takes."""
    if _is_flag(option) or option.metavar:
        return option.metavar or ""
    if isinstance(kind, EnumType):
        return " ".join(f"`{choice.value}`" for choice in list[Any](kind))
    return _TAKES[kind]


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if option.default is None or _is_flag(option):
        return ""
    values = option.default if isinstance(option.default, list) else [option.default]
    return ", ".join(f"`{getattr(value, 'value', value)}`" for value in values)
