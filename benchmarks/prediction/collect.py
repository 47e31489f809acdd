"""Merge the journals into a compact table, which the repository keeps.

    python -m benchmarks.prediction.collect

Rows already in the table stay; of two results of one fit, the later one is kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import json
from pathlib import Path
from typing import Any

import pandas

from benchmarks import parquet
from benchmarks.prediction.evaluate import MEASURES
from benchmarks.race import journal


RESULTS = journal.RESULTS.parent / "prediction"
TABLE_NAME = "prediction.parquet"
TABLE = RESULTS / TABLE_NAME

KEY = ["method", "task", "n_observed", "split"]
COLUMNS = [
    *KEY,
    *MEASURES,
    "moved",  # whether training has changed the text view
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
    return parquet.read(path, COLUMNS, of="predictions", made_by="benchmarks.prediction.collect")


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
    numbers = dict.fromkeys([*MEASURES, "total_seconds"], "float64")
    return table.astype(numbers | {"moved": "boolean", "error": "string"})


def main() -> None:
    """Merge the journals into the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    folder = parser.parse_args().results
    table = table_of(known(folder))
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / (TABLE_NAME + ".writing")
    table.to_parquet(scratch, compression="zstd", index=False)
    scratch.replace(folder / TABLE_NAME)
    n_failed = int(table["error"].notna().sum())
    print(f"{folder / TABLE_NAME}: {len(table)} fits, {n_failed} of them failed")


if __name__ == "__main__":
    main()
