"""Merge the journals into a compact table, which the repository keeps.

    python -m benchmarks.race.collect
    python -m benchmarks.race.collect --journals FOLDER OTHER --table race.parquet

Rows already in the table stay; of two results of one study (task, method, start and seed) the
later one is kept, and the journals are later than the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from collections.abc import Mapping
import json
import os
from pathlib import Path
from typing import Any

import pandas
import pyarrow

from benchmarks import parquet
from benchmarks.race import journal


TABLE_NAME = "race.parquet"
TABLE = journal.RESULTS / TABLE_NAME

SCHEMA = pyarrow.schema(
    {
        "task": pyarrow.string(),
        "method": pyarrow.string(),
        "start": pyarrow.string(),  # plain, or default: the default configuration is trial 0
        "seed": pyarrow.int32(),
        "budget": pyarrow.int32(),  # trials asked for
        "values": pyarrow.list_(pyarrow.float64()),  # by trial; nan if it failed
        "seconds": pyarrow.list_(pyarrow.float32()),  # per trial, besides computing its value
        # standard deviations above what was expected; nan: nothing was, null: not recorded
        "surprises": pyarrow.list_(pyarrow.float32()),
        "best_params": pyarrow.string(),  # JSON
        "error": pyarrow.string(),  # traceback; null if there was none
        "warnings": pyarrow.string(),  # JSON: the first ones of Optuna and of the sampler
        "total_seconds": pyarrow.float32(),
        "commit": pyarrow.string(),
        "versions": pyarrow.string(),  # JSON
        "python": pyarrow.string(),
        "cpu": pyarrow.string(),
        "date": pyarrow.string(),
    }
)

_AS_JSON = ("best_params", "warnings", "versions")


def merge(*parts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Merge rows, sorted by study; the last row of each study is kept."""
    rows = {journal.key_of(row): dict(row) for part in parts for row in part}
    return [rows[key] for key in sorted(rows)]


def from_journal(record: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a journal's record to a row of the table."""
    return {**record, **{name: json.dumps(record[name]) for name in _AS_JSON}}


def read(path: str | os.PathLike[str]) -> pandas.DataFrame:
    """Read the table.

    Raises:
        InputError: if there is no such file, or it is not such a table.
    """
    return parquet.read(path, SCHEMA.names, of="a race", made_by="benchmarks.race.collect")


def main() -> None:
    """Merge the journals into the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--journals", type=Path, nargs="+", default=[journal.RESULTS])
    parser.add_argument("--table", type=Path, default=TABLE)
    arguments = parser.parse_args()
    there = parquet.rows_of(arguments.table)
    found = [from_journal(r) for folder in arguments.journals for r in journal.read(folder)]
    rows = merge(there, found)
    parquet.write(rows, arguments.table, SCHEMA)
    failed = sum(row["error"] is not None for row in rows)
    print(f"{arguments.table}: {len(rows)} studies, {failed} of them failed")


if __name__ == "__main__":
    main()
