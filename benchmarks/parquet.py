"""Read and write tables of results as Parquet files."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import os
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pyarrow.parquet

from optuna_llmbo.errors import InputError


def read(
    path: str | os.PathLike[str], columns: Collection[str], *, of: str, made_by: str
) -> pandas.DataFrame:
    """Read a table and check its columns.

    Args:
        path: path of the file.
        columns: columns that it must have.
        of: what the rows are, for messages.
        made_by: the module that makes the table, for messages.

    Raises:
        InputError: if there is no such file, or it lacks a column.
    """
    if not Path(path).is_file():
        raise InputError(
            f"there is no table {os.fspath(path)!r}: make it with `python -m {made_by}`."
        )
    table = pandas.read_parquet(path)
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise InputError(
            f"{os.fspath(path)!r} is not a table of {of}: it lacks {', '.join(missing)}."
        )
    return table


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Read a table's rows as stored; none if there is no table yet."""
    return pyarrow.parquet.read_table(path).to_pylist() if path.exists() else []


def write(rows: Sequence[Mapping[str, Any]], path: Path, schema: pyarrow.Schema) -> None:
    """Write a table; the file is replaced only once it is complete."""
    scratch = path.with_name(path.name + ".writing")
    scratch.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist([dict(row) for row in rows], schema=schema)
    pyarrow.parquet.write_table(table, scratch, compression="zstd")
    scratch.replace(path)
