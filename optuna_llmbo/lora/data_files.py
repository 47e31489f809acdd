"""Data files read into rows as they are written: no value is guessed, converted or left out."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import csv
import gzip
import io
import json
from pathlib import Path
import sys
from typing import Any
import zlib

from optuna_llmbo.errors import InputError


Row = dict[str, Any]
"""Values by column; a column that a row lacks is not in it."""

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
"""Each may be followed by ".gz"."""

_NO_DATA = (".md", "_success", "readme", "license", "license.txt")
"""Ends of the names of files that lie in folders of data and hold none, in lower case."""
_HELD_OUT = {"test", "validation", "valid", "val", "dev", "eval", "evaluation"}
"""Words in the names of files that are not to be trained on."""


def kind_of(path: Path) -> str | None:
    """One of `SUFFIXES` that a file's name ends with, ".gz" apart; None for another kind."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def read_file(path: Path) -> list[Row]:
    """Read all rows of a JSON, JSONL, CSV or Parquet file, which may be gzipped.

    JSON is a list of objects, or one object per line. CSV has a header and commas; its values are
    texts.

    Raises:
        InputError: if the file is of none of these kinds, empty, or damaged.
    """
    kind = kind_of(path)
    if kind is None:
        raise InputError(
            f"{str(path)!r} has none of the known suffixes: {', '.join(SUFFIXES)}, each also with "
            ".gz."
        )
    try:
        content = path.read_bytes()
        if path.suffix.lower() == ".gz":
            content = gzip.decompress(content)
        rows = _READERS[kind](content) if content.strip() else []
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise InputError(f"cannot read the data {str(path)!r}: {error}") from error
    if not rows:
        what = f"it has {len(content)} bytes" if kind != ".parquet" else "it has columns only"
        if kind == ".csv" and content.strip():
            what = "it has a header only"
        raise InputError(f"{str(path)!r} has no rows: {what}.")
    return rows


def read_folder(folder: Path) -> list[Row]:
    """Read the rows of all data files of a folder, in the order of the files' names.

    Hidden files, Markdown and licenses hold no data. Everything else in the folder has to be data
    of one kind.

    Raises:
        InputError: if it is not, if files of several splits lie in the folder, or a file cannot be
            read.
    """
    files = sorted(p for p in folder.iterdir() if not _holds_no_data(p))
    if not files:
        raise InputError(f"the folder {str(folder)!r} has no data files: {', '.join(SUFFIXES)}.")
    kinds = {kind_of(path) if path.is_file() else None for path in files}
    if len(kinds) > 1 or None in kinds:
        raise InputError(
            f"the folder {str(folder)!r} is to hold data files of one kind ({', '.join(SUFFIXES)})"
            f" and nothing else, but has {_some(files)}. Name one of the files, or move the "
            "others away."
        )
    is_held_out = [bool(_HELD_OUT & set(_words(path.name))) for path in files]
    if any(is_held_out) and not all(is_held_out):
        raise InputError(
            f"the folder {str(folder)!r} has files to train on and others ({_some(files)}): name "
            "the files, one for each part."
        )
    return [row for path in files for row in read_file(path)]


def _holds_no_data(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower().endswith(_NO_DATA)


def _some(files: Sequence[Path]) -> str:
    names = [path.name + "/" * path.is_dir() for path in files[:5]]
    return ", ".join(names) + (f" and {len(files) - 5} more" if len(files) > 5 else "")


def _words(name: str) -> list[str]:
    return "".join(c if c.isalpha() else " " for c in name.lower()).split()


def _from_json(content: bytes) -> list[Row]:
    text = content.decode("utf-8-sig")
    if text.lstrip().startswith("["):
        rows = _parsed(text)
    else:
        lines = enumerate(text.split("\n"), start=1)
        try:
            rows = [_parsed(line, f"line {i}: ") for i, line in lines if line.strip()]
        except ValueError as error:
            if isinstance(error.__cause__, json.JSONDecodeError) and _is_one_object(text):
                raise ValueError(
                    "it holds one object. Expected a list of objects, or one object per line."
                ) from None
            raise
    bad = next((i for i, row in enumerate(rows) if not isinstance(row, dict)), None)
    if bad is not None:
        raise ValueError(
            f"row {bad} (counted from 0) is {rows[bad]!r:.60}. Expected a list of objects, or one "
            "object per line."
        )
    return list(rows)


def _parsed(text: str, place: str = "") -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        if place:
            raise ValueError(f"{place}{error.msg} at character {error.colno}") from error
        raise


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has the key {twice!r} twice.")
    return row


def _is_one_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _from_csv(content: bytes) -> list[Row]:
    before = csv.field_size_limit(sys.maxsize)
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        names = next(reader, [])
        if len(set(names)) < len(names):
            raise ValueError(f"columns have the same name: {', '.join(names)}.")
        rows = []
        for values in reader:
            if values and len(values) != len(names):
                raise ValueError(
                    f"line {reader.line_num} has {len(values)} values, and the header "
                    f"{len(names)}: values with commas or line breaks need quotes."
                )
            if values:
                rows.append(dict(zip(names, values, strict=True)))
        return rows
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error
    finally:
        csv.field_size_limit(before)


def _from_parquet(content: bytes) -> list[Row]:
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(content))
    if len(set(table.column_names)) < len(table.column_names):
        raise ValueError(f"columns have the same name: {', '.join(table.column_names)}.")
    return list(table.to_pylist())


_READERS: dict[str, Callable[[bytes], list[Row]]] = {
    ".json": _from_json,
    ".jsonl": _from_json,
    ".csv": _from_csv,
    ".parquet": _from_parquet,
}
