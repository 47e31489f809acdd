"""The table of results: one row per study."""

from __future__ import annotations

from collections.abc import Mapping
import os
from pathlib import Path
from typing import Any

import pandas
import pyarrow

from benchmarks import parquet


TABLE = Path(__file__).parent.parent / "results" / "parallel" / "parallel.parquet"

SCHEMA = pyarrow.schema(
    {
        "task": pyarrow.string(),
        "method": pyarrow.string(),
        "workers": pyarrow.int32(),
        "seed": pyarrow.int32(),
        "budget": pyarrow.int32(),  # trials of all workers together
        "training": pyarrow.float64(),  # seconds of sleep per trial
        "values": pyarrow.list_(pyarrow.float64()),  # in the order in which the trials ended
        "ends": pyarrow.list_(pyarrow.float64()),  # of trials, in seconds after the first began
        "suggestion_seconds": pyarrow.list_(pyarrow.float32()),  # per trial, besides its value
        "duplicates": pyarrow.int32(),  # trials with the parameters of an earlier one
        "error": pyarrow.string(),  # traceback; null if there was none
        "commit": pyarrow.string(),
        "versions": pyarrow.string(),  # JSON
        "postgresql": pyarrow.string(),
        "python": pyarrow.string(),
        "cpu": pyarrow.string(),
        "cores": pyarrow.int32(),
        "date": pyarrow.string(),
    }
)

KEY = ("task", "method", "workers", "seed", "training")
"""Columns that identify a study."""


def read(path: str | os.PathLike[str]) -> pandas.DataFrame:
    """Read the table.

    Raises:
        InputError: if there is no such file, or it is not such a table.
    """
    return parquet.read(
        path, SCHEMA.names, of="parallel studies", made_by="benchmarks.parallel.run"
    )


def add(path: Path, row: Mapping[str, Any]) -> None:
    """Add a study to a table, replacing an earlier run of it."""
    rows = [other for other in parquet.rows_of(path) if key_of(other) != key_of(row)]
    parquet.write([*rows, row], path, SCHEMA)


def key_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the key of a row, as `study.Plan.key` does."""
    return tuple(row[name] for name in KEY)
