"""The run: splits, order, journals, going on, the table, and the report of it."""

from __future__ import annotations

import json
from pathlib import Path
import sys
from typing import Any

import numpy as np
import pandas
import pytest

from benchmarks.choices import evaluate
from benchmarks.choices import problems
from benchmarks.choices import report
from benchmarks.choices import results
from benchmarks.choices import run
from benchmarks.choices.problems import Problem
from benchmarks.prediction.evaluate import Plan
from benchmarks.race import journal
from optuna_llmbo.errors import InputError
from tests.benchmarks.choices.conftest import N_ROWS


TASKS = "choices-peft,choices-automl-2"


def record(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"method": "equal+main", "task": "choices-peft", "n_observed": 30}
    values |= {"split": 0, "n_predicted": 500, "moved": False, "error": None}
    values |= dict.fromkeys(evaluate.MEASURES, 0.5)
    values |= {"total_seconds": 1.0, "commit": "abc", "versions": {"optuna": "5.0.0"}}
    return values | {"python": "3.11", "cpu": "Z80", "date": "2026-01-01"} | changes


def rows(method: str, tasks: dict[str, float], splits: int = 2, n: int = 30) -> list[Any]:
    """Results with a rank correlation for each task."""
    return [
        record(method=method, task=task, split=split, spearman=value, n_observed=n, versions="{}")
        for task, value in tasks.items()
        for split in range(splits)
    ]


class TestProblem:
    def test_rows(self, problem: Problem) -> None:
        assert len(problem.task.listed) == N_ROWS
        assert (problem.n_numbers, problem.sizes) == (1, (3, 16))
        features = problem.features([0, 1, N_ROWS - 1])
        np.testing.assert_allclose(features, [[0, 0, 0], [0, 0, 1], [1, 2, 15]])
        assert problem.values([0])[0] == pytest.approx(-2.0, abs=0.5)

    def test_split(self, problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
        observed, others = problem.split(30, 1)
        assert len(others) == N_ROWS - 30 and not set(observed) & set(others)
        assert set(problem.split(15, 1)[0]) < set(observed)
        assert set(problem.split(30, 2)[0]) != set(observed)
        monkeypatch.setattr(problems, "N_PREDICTED", 10)
        assert len(problem.split(30, 1)[1]) == 10
        with pytest.raises(InputError, match=f"choices-small has {N_ROWS} rows.* got 191"):
            problem.split(N_ROWS - 1, 0)

    def test_tasks_without_a_table(self) -> None:
        with pytest.raises(InputError, match="bbob-sphere-2d is not made of a table"):
            problems.load.__wrapped__("bbob-sphere-2d")


@pytest.mark.usefixtures("problem", "one_thread")
class TestRun:
    def call(self, monkeypatch: pytest.MonkeyPatch, folder: Path, *options: str) -> None:
        monkeypatch.setattr(run.tasks, "check", lambda names: None)  # type: ignore[attr-defined]
        fixed = ["--out", str(folder), "--tasks", TASKS, "--observed", "12", "--splits", "2"]
        monkeypatch.setattr(sys, "argv", ["run", *fixed, *options])
        run.main()

    def test_what_was_interrupted_goes_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        options = ("--variants", "equal,random")
        self.call(monkeypatch, tmp_path, *options, "--minutes", "-1")
        assert "8 fits, 8 to make" in (text := capsys.readouterr().err)
        assert "8 fits were not begun" in text
        self.call(monkeypatch, tmp_path, *options)
        table = results.read(tmp_path / results.TABLE_NAME)
        assert len(table) == 8 and table["error"].isna().all()
        assert (table["n_predicted"] == N_ROWS - 12).all()
        assert table["coverage"].between(0.3, 1).all() and table["nlpd"].notna().all()
        for path in tmp_path.glob("*.jsonl"):
            path.unlink()  # the table is enough to go on
        self.call(monkeypatch, tmp_path, *options, "--dry-run")
        assert "8 fits, 0 to make" in capsys.readouterr().err
        self.call(monkeypatch, tmp_path, *options, "--again", "--dry-run")
        assert "8 fits, 8 to make" in capsys.readouterr().err

    def test_what_failed_is_tried_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        options = ("--variants", "equal")
        with monkeypatch.context() as patch, pytest.raises(SystemExit, match="4 fits failed"):
            patch.setattr(evaluate, "predict", lambda *_: 1 / 0)
            self.call(monkeypatch, tmp_path, *options)
        assert "FAILED ZeroDivisionError" in capsys.readouterr().err
        self.call(monkeypatch, tmp_path, *options)
        assert "4 fits, 4 to make" in capsys.readouterr().err
        table = results.table_of(results.known(tmp_path))
        assert len(table) == 4 and table["error"].isna().all()
        assert json.loads(table["versions"][0])["optuna"]

    def test_unknown_variant(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            self.call(monkeypatch, tmp_path, "--variants", "colour")
        assert "unknown variant 'colour': expected one of one-hot" in capsys.readouterr().err


def test_fits_of_a_task_come_together() -> None:
    plans = run.plan(["equal", "read"], ["a", "b"], observed=[15, 30], splits=range(2))
    assert [plan.task for plan in plans] == ["a"] * 8 + ["b"] * 8
    done = [record(method="equal", task="a", n_observed=15, split=1)]
    assert run.missing(plans[:2], done) == [Plan("equal", "a", 15, 0)]


def test_the_later_one_is_kept(tmp_path: Path) -> None:
    journal.append(tmp_path, record(error="Traceback", **dict.fromkeys(evaluate.MEASURES)))
    assert results.store(tmp_path)["error"].notna().all()
    journal.append(tmp_path, record(nlpd=0.25))
    assert results.store(tmp_path)["nlpd"].tolist() == [0.25]
    with pytest.raises(InputError, match=r"benchmarks\.choices\.run"):
        results.read(tmp_path / "nothing.parquet")


class TestReport:
    BASE = {"choices-peft": 0.2, "choices-automl-13": 0.4, "choices-automl-15": 0.6}

    def lines(self, table: pandas.DataFrame) -> dict[str, list[list[str]]]:
        """Rows of each table, without its head, by title."""
        sections = report.report(table).split("\n## ")[1:]
        return {
            section.splitlines()[0]: [
                line.strip("| ").split(" | ")
                for line in section.splitlines()
                if line[:2] == "| " and "---" not in line
            ][1:]
            for section in sections
        }

    def test_families_weigh_the_same_and_differences_are_paired(self) -> None:
        better = {task: value + 0.1 for task, value in self.BASE.items()}
        part = {"choices-peft": 0.9}  # cannot be compared: other tables
        found = self.lines(
            results.table_of(
                [*rows("equal+main", self.BASE), *rows("read", better), *rows("equal", part)]
            )
        )
        assert list(found) == [
            "Reported tables, 30 observed",
            "Reported tables by family, 30 observed",
        ]
        base, read = found["Reported tables, 30 observed"]
        assert base[0].startswith("equal+main: ") and base[1:4] == ["6", "0.350", ""]
        assert read[0].startswith("read: ")
        assert read[1:4] == ["6", "0.450", "+0.100 (+0.100 to +0.100)"]
        assert read[-1] == "50.0%"
        by_family = found["Reported tables by family, 30 observed"]
        assert by_family[0] == ["equal", "-", "0.90 / 0.50 / 50%"]
        assert by_family[1] == ["equal+main", "0.50 / 0.50 / 50%", "0.20 / 0.50 / 50%"]

    def test_all_tables_are_compared_on_splits_that_all_have(self) -> None:
        tuning = {"choices-automl-2": 0.8}
        few = [*rows("equal+main", self.BASE), *rows("read", self.BASE)]
        many = [row for name in ("equal+main", "read") for row in rows(name, tuning, splits=4)]
        failed = record(method="read", task="choices-automl-2", split=7, error="Traceback")
        found = self.lines(results.table_of([*few, *many, failed | {"versions": "{}"}]))
        base, _ = found["All tables, 30 observed"]
        assert base[1:3] == ["8", "0.400"]
        assert found["Tuning tables, 30 observed"][1][1:3] == ["4", "0.800"]
        assert "Tuning tables by family, 30 observed" in found

    def test_from_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / results.TABLE_NAME
        results.table_of(rows("equal+main", self.BASE)).to_parquet(path)
        monkeypatch.setattr(sys, "argv", ["report", "--table", str(path)])
        report.main()
        out = capsys.readouterr().out
        assert "3 tables in 2 families." in out and "Commits: abc. Processors: Z80." in out
