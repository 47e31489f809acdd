"""The tests that need a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
import subprocess
import sys
import tempfile
from typing import Any
import xml.etree.ElementTree as ElementTree

from benchmarks import console
from benchmarks.gpu.part import Part
from benchmarks.gpu.part import Setting
from benchmarks.gpu.record import Cell
from benchmarks.gpu.record import measured
from benchmarks.gpu.record import Record


ROOT = Path(__file__).parents[2]
_MARK = "pytest.mark.gpu"
_OUTCOMES = {"failure": "failed", "error": "failed", "skipped": "skipped"}
_LONGEST = 300
"""Characters of a reason that are kept."""


def measure(setting: Setting, record: Record) -> None:
    """Run the tests, and keep how each ended."""
    files = setting.sizes.tests or find(ROOT / "tests")
    record.measure("tests", lambda: run(files, record.seconds_left), needs=5)


def find(folder: Path) -> tuple[str, ...]:
    """Return the files below a folder that have tests with the mark, relative to the root."""
    files = sorted(folder.rglob("test_*.py"))
    return tuple(str(file.relative_to(ROOT)) for file in files if _MARK in file.read_text())


def run(files: Sequence[str], seconds: float) -> Cell:
    """Run the tests of some files that have the mark.

    Args:
        files: relative to the root; no other is imported.
        seconds: after which they are stopped.

    Returns:
        For each test its name, how it ended and why; pytest's exit code and its last line.
    """
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
        ended = subprocess.run(
            [*command, f"--junitxml={told}", *files],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        tests = _outcomes(told) if told.exists() else []
    lines = ended.stdout.strip().splitlines() or ended.stderr.strip().splitlines() or [""]
    return {"exit_code": ended.returncode, "last_line": lines[-1], "tests": tests}


def _outcomes(told: Path) -> list[dict[str, Any]]:
    found = []
    for case in ElementTree.parse(told).getroot().iter("testcase"):
        ends = [child for child in case if child.tag in _OUTCOMES]
        found.append(
            {
                "name": f"{case.get('classname')}.{case.get('name')}",
                "outcome": _OUTCOMES[ends[0].tag] if ends else "passed",
                "why": (ends[0].get("message") or "")[:_LONGEST] if ends else "",
            }
        )
    return found


def tables(record: Mapping[str, Any]) -> list[str]:
    """Format how each test ended."""
    (cell,) = measured(record).values() or ({},)
    rows = [
        [f"`{test['name']}`", test["outcome"], " ".join(test["why"].split()).replace("|", "/")]
        for test in cell.get("tests", ())
    ]
    return [console.table(["test", "outcome", "why"], rows)] if rows else []


PART = Part(
    "The tests that need a GPU",
    "`pytest -m gpu`: results on the device are those on the CPU, and random states are kept.",
    35,
    measure,
    tables,
)
