"""The page's tables are those of the stored results."""

from __future__ import annotations

from benchmarks.choices import report
from benchmarks.choices import results
from tests.docs_blocks import ROOT


def test_the_tables_are_the_reports() -> None:
    page = (ROOT / "docs" / "benchmarks" / "choices.md").read_text()
    printed = report.report(results.read(results.TABLE))
    tables = [part for part in printed.split("\n\n") if part.startswith("| ")]
    assert len(tables) >= 5
    assert [table for table in tables if table not in page] == []
