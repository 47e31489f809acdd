"""The stored table of results, and the journals that it is made of."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import json
from pathlib import Path
from typing import Any

import pandas

from benchmarks import parquet
from benchmarks.choices.evaluate import MEASURES
from benchmarks.race import journal


RESULTS = journal.RESULTS.parent / "choices"
TABLE_NAME = "choices.parquet"
TABLE = RESULTS / TABLE_NAME

KEY = ["method", "task", "n_observed", "split"]
COLUMNS = [
    *KEY,
    *MEASURES,
    "n_predicted",
    "moved",  # whether training has changed the token
    "error",  # traceback; null if there was none
    "total_seconds",
    "commit",
    "versions",  # JSON
    "python",
    "cpu",
    "date",
]


def read(path: Path) -> pandas.DataFrame:
    """Read the table.

    Raises:
        InputError: if there is no such file, or it is not such a table.
    """
    return parquet.read(
        path, COLUMNS, of="predictions of choices", made_by="benchmarks.choices.run"
    )


def known(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield all results in a folder's table and journals, later ones last."""
    path = folder / TABLE_NAME
    if path.exists():
        yield from read(path).astype(object).where(lambda t: t.notna(), None).to_dict("records")
    for record in journal.read(folder):
        yield record | {"versions": json.dumps(record["versions"])}


def table_of(records: Iterable[Mapping[str, Any]]) -> pandas.DataFrame:
    """Make a table with one row per fit, the last result of each, sorted."""
    rows = {tuple(record[name] for name in KEY): record for record in records}
    table = pandas.DataFrame([rows[key] for key in sorted(rows)], columns=COLUMNS)
    numbers = dict.fromkeys([*MEASURES, "total_seconds"], "float64") | {"n_predicted": "Int64"}
    return table.astype(numbers | {"moved": "boolean", "error": "string"})


def store(folder: Path) -> pandas.DataFrame:
    """Merge the journals into the table, and return it."""
    table = table_of(known(folder))
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / (TABLE_NAME + ".writing")
    table.to_parquet(scratch, compression="zstd", index=False)
    scratch.replace(folder / TABLE_NAME)
    return table
