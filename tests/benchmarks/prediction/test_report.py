"""The report of made-up predictions."""

from __future__ import annotations

from pathlib import Path
import sys
from typing import Any

import pandas
import pytest

from benchmarks.prediction import collect
from benchmarks.prediction import report
from benchmarks.prediction.variants import QUESTIONS
from benchmarks.prediction.variants import TEXT_TASKS
from tests.benchmarks.prediction.test_run import record


BY_NAME = {question.name: question for question in QUESTIONS}


def rows(
    method: str, better: float = 0.0, splits: int = 3, **changes: Any
) -> list[dict[str, Any]]:
    """Results whose rank correlation is 0.5 on average, and better by so much."""
    return [
        record(
            method=method,
            task=task,
            n_observed=n,
            split=split,
            spearman=0.4 + i / 15 + split / 10 - 0.1 + better,
            versions="{}",
            **changes,
        )
        for i, task in enumerate(TEXT_TASKS)
        for n in (12, 25)
        for split in range(splits)
    ]


def table_of(*parts: list[dict[str, Any]]) -> pandas.DataFrame:
    return collect.table_of(row for part in parts for row in part)


def lines(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line[:1] == "|"]


def test_the_base_comes_first_and_differences_are_paired() -> None:
    table = table_of(rows("sum"), rows("sum-layer-last", 0.25), rows("sum-layer-half", splits=2))
    head, _, *found = lines(report.answer(table, BY_NAME["layer"]))
    assert head[:5] == ["variant", "observed", "fits", "rank correlation", "difference"]
    assert [line[:3] for line in found] == [
        [f"sum: {label}", n, fits]
        for n in ("12", "25")
        for label, fits in (("quarter", "12"), ("half", "8"), ("last", "12"))
    ]
    assert found[0][3:5] == ["0.500", ""]
    assert found[1][3:5] == ["0.450", "+0.000 (+0.000 to +0.000)"]
    assert found[2][3:5] == ["0.750", "+0.250 (+0.250 to +0.250)"]


def test_what_failed_is_left_out() -> None:
    broken = rows("sum-pooling-mean")
    broken[0] |= {"error": "Traceback", "spearman": None}
    found = lines(report.answer(table_of(rows("sum"), broken), BY_NAME["pooling"]))
    assert [line[2] for line in found[2:]] == ["12", "11", "12", "12"]


def test_training_says_how_well_the_observed_fit() -> None:
    trained = rows("text-training-free-both", training_nlpd=-0.5, moved=True)
    trained[0]["moved"] = False
    table = table_of(rows("text"), trained)
    head, _, *found = lines(report.answer(table, BY_NAME["training"]))
    assert head[-5:] == [
        "training density", "difference", "left-out density", "difference", "moved",
    ]  # fmt: skip
    assert [line[0] for line in found] == ["text: nothing", "text: free both"] * 2
    assert found[1][-5:-3] == ["-0.500", "-1.000 (-1.000 to -1.000)"]
    assert [line[-1] for line in found] == ["0.00", "0.92", "0.00", "1.00"]


def test_questions_without_results_are_left_out() -> None:
    text = report.report(table_of(rows("sum"), rows("numeric")), QUESTIONS)
    assert "## Kernel\n\nTasks: hpobench-car" in text
    assert "## Derived" not in text and "## Wording" not in text  # a base alone
    assert report.answer(table_of(rows("sum-wording-bare")), BY_NAME["wording"]) == ""


def test_from_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prediction.parquet"
    table_of(rows("sum"), rows("sum-wording-bare", 0.1)).to_parquet(path)
    options = ["--table", str(path), "--questions"]
    monkeypatch.setattr(sys, "argv", ["report", *options, "wording"])
    report.main()
    out = capsys.readouterr().out
    assert "| sum: bare | 12 | 12 | 0.600 | +0.100 (+0.100 to +0.100) |" in out
    assert "Commits: abc. Processors: Z80." in out
    monkeypatch.setattr(sys, "argv", ["report", *options, "colour"])
    with pytest.raises(SystemExit):
        report.main()
    assert "unknown question 'colour'" in capsys.readouterr().err
