"""The kept results of bfloat16 and float32, and the table that is made of them."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import precision


def test_the_table() -> None:
    found = {
        "bfloat16": {"base": 4.0, "losses": [3.5, 3.0, 2.5]},
        "float32": {"base": 4.0, "losses": [3.25, 3.0, 2.75]},
    }
    rows = precision.table({"dtypes": found}).splitlines()[2:]
    assert rows[1] == "| 0.0002 | 3.5000 | 3.2500 | +0.2500 |"
    assert [row.split(" | ")[3] for row in rows] == [
        "+0.0000 |",
        "+0.2500 |",
        "+0.0000 |",
        "-0.2500 |",
    ]


def test_the_document_shows_the_results() -> None:
    document = (Path(__file__).parents[2] / "docs" / "benchmarks" / "training.md").read_text()
    rows = precision.table(json.loads(precision.RESULTS.read_text())).splitlines()
    assert len(rows) == 6 and all(row in document for row in rows)
