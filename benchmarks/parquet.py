"""Tables of results, as Parquet files."""

from __future__ import annotations

from collections.abc import Collection
import os
from pathlib import Path

import pandas

from optuna_llmbo.errors import InputError


def read(
    path: str | os.PathLike[str], columns: Collection[str], *, of: str, made_by: str
) -> pandas.DataFrame:
    """A table that has these columns.

    Args:
        path: of the file.
        columns: that it must have.
        of: what it is a table of.
        made_by: the module that makes it.

    Raises:
        InputError: if there is no such file, or it holds something else.
    """
    if not Path(path).is_file():
        raise InputError(
            f"there is no table {os.fspath(path)!r}: make it with `python -m {made_by}`."
        )
    table = pandas.read_parquet(path)
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise InputError(
            f"{os.fspath(path)!r} is no table of {of}: it lacks {', '.join(missing)}."
        )
    return table
