"""The kept results of generated metrics and of commands, and the tables made of them."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import commands
from benchmarks import generation


DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks" / "training.md"


def test_both_ways_measure_the_same() -> None:
    found = json.loads(generation.RESULTS.read_text())["metrics"]
    assert found["whole"]["value"] == found["exact_match"]["value"]
    assert found["exact_match"]["passes"] < found["whole"]["passes"]


def test_the_tables() -> None:
    document = DOCUMENT.read_text()
    for module, n_rows in ((generation, 5), (commands, 5)):
        rows = module.table(json.loads(module.RESULTS.read_text())).splitlines()
        assert len(rows) == n_rows and all(row in document for row in rows)


def test_a_command_is_measured(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    assert commands.processor_seconds(["--help"], tmp_path, root) > 0
