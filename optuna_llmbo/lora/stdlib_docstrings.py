"""Real training data on every machine: Python's own functions and their docstrings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
import inspect
from pathlib import Path
import sysconfig
import textwrap
import tokenize


NAME = "stdlib-docstrings"
INSTRUCTION = "Write the first paragraph of this function's docstring."

_SKIPPED = {
    "__pycache__",
    "dist-packages",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "turtledemo",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def stdlib_docstrings(folder: Path | None = None) -> list[tuple[str, str]]:
    """(code, first paragraph of its docstring) for every documented function of the library.

    About 5,500 pairs, which differ a little between versions of Python. The order depends on
    names and line numbers alone; of equal prompts the first is kept.

    Args:
        folder: where to look; default: the standard library of the running Python.

    Returns:
        Prompts (an instruction, signature and body) and responses (one line each).
    """
    found: dict[str, str] = {}
    for source, tree in stdlib_sources(folder):
        for code, paragraph in _documented_functions(source, tree):
            found.setdefault(f"{INSTRUCTION}\n\n{code}", paragraph)
    return list(found.items())


def stdlib_sources(folder: Path | None = None) -> Iterator[tuple[str, ast.Module]]:
    """Text and syntax tree of every module of the library but its tests, in order of their paths.

    Args:
        folder: where to look; default: the standard library of the running Python.
    """
    root = folder or Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        if not _SKIPPED.isdisjoint(path.relative_to(root).parts):
            continue
        try:
            with tokenize.open(path) as file:
                source = file.read()
            tree = ast.parse(source)
        except (SyntaxError, ValueError, OSError):  # an example of bad syntax, or not readable
            continue
        yield source, tree


def functions_of(tree: ast.Module) -> list[Function]:
    """The functions and methods of a module, in order of their lines."""
    functions = [node for node in ast.walk(tree) if isinstance(node, Function)]
    return sorted(functions, key=lambda node: node.lineno)


def _documented_functions(source: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    lines = source.splitlines()
    for function in functions_of(tree):
        paragraph = _first_paragraph(function)
        code = _without_docstring(function, lines)
        if paragraph and code:
            yield code, paragraph


def _first_paragraph(function: Function) -> str:
    docstring = ast.get_docstring(function, clean=False) or ""
    return " ".join(inspect.cleandoc(docstring).split("\n\n")[0].split())


def _without_docstring(function: Function, lines: list[str]) -> str:
    """Signature and body; empty if there is no body, or it shares a line with the docstring."""
    docstring, *body = function.body
    if not body or docstring.lineno == function.lineno:
        return ""
    end = docstring.end_lineno or docstring.lineno
    if body[0].lineno <= end:
        return ""
    kept = lines[function.lineno - 1 : docstring.lineno - 1] + lines[end : function.end_lineno]
    return textwrap.dedent("\n".join(kept))
