"""Journals: one JSON line per study, one file per method, append-only."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import json
import os
from pathlib import Path
import sys
from typing import Any

from benchmarks.race.study import Plan


RESULTS = Path(__file__).parent.parent / "results" / "race"
SUFFIX = ".journal.jsonl"


def append(folder: Path, record: Mapping[str, Any]) -> None:
    """Append a study to its method's journal, in one write."""
    folder.mkdir(parents=True, exist_ok=True)
    append_line(folder / f"{record['method']}{SUFFIX}", record)


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append a record to a file of JSON lines, in one write."""
    line = json.dumps(record) + "\n"
    if _is_torn(path):
        line = "\n" + line
    with open(path, "ab", buffering=0) as file:
        file.write(line.encode())


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield all studies in the journals of a folder, in the order of each file."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        yield from read_lines(path)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file of JSON lines.

    A line that a killed process left half written is skipped, with a message.
    """
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            record = json.loads(line) if line else None
        except json.JSONDecodeError:
            print(f"{path.name}, line {number}: half written, skipped", file=sys.stderr)
            continue
        if record is not None:
            yield record


def missing(plans: Sequence[Plan], records: Iterable[Mapping[str, Any]]) -> list[Plan]:
    """Return the plans without a successful study of at least that budget.

    Args:
        plans: the planned studies.
        records: records of journals or of the table; the last one of each study counts.
    """
    done = {key_of(record): record["budget"] for record in records if record["error"] is None}
    return [plan for plan in plans if done.get(plan.key, 0) < plan.budget]


def key_of(record: Mapping[str, Any]) -> tuple[str, str, str, int]:
    """As `Plan.key`."""
    return (record["task"], record["method"], record["start"], record["seed"])


def _is_torn(path: Path) -> bool:
    """Check whether the file ends in an incomplete line."""
    if not path.exists() or not path.stat().st_size:
        return False
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"
