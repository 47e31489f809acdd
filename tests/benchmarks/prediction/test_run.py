"""The run: order, journals, going on, and the table that is made of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
import json
from pathlib import Path
import sys
from typing import Any

import pandas
import pytest

from benchmarks.prediction import collect
from benchmarks.prediction import evaluate
from benchmarks.prediction import run
from benchmarks.prediction import texts
from benchmarks.prediction.evaluate import Plan
from benchmarks.prediction.problems import Problem
from benchmarks.race import journal
from optuna_llmbo.errors import InputError


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.workers, "pool", lambda jobs: ThreadPoolExecutor(1))  # type: ignore[attr-defined]


def call(monkeypatch: pytest.MonkeyPatch, folder: Path, *options: str) -> None:
    fixed = ["--results", str(folder), "--observed", "6", "--splits", "1", "--jobs", "1"]
    monkeypatch.setattr(sys, "argv", ["run", *fixed, *options])
    run.main()


def record(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"method": "sum", "task": "lora-10", "n_observed": 12, "split": 0}
    values |= dict.fromkeys(evaluate.MEASURES, 0.5) | {"moved": False, "error": None}
    values |= {"total_seconds": 1.0, "commit": "abc", "versions": {"optuna": "5.0.0"}}
    return values | {"python": "3.11", "cpu": "Z80", "date": "2026-01-01"} | changes


def test_all_of_a_split_comes_before_the_next() -> None:
    plans = run.plan(["kernel"], ["lora-10", "bbob-rastrigin-5d"], splits=[3, 4], observed=[6, 9])
    assert [(p.split, p.n_observed, p.method, p.task) for p in plans] == [
        (split, n, method, "lora-10")
        for split in (3, 4)
        for n in (6, 9)
        for method in ("sum", "numeric", "text")
    ]
    with pytest.raises(InputError, match=r"from 2 to 255 configurations.*got \[1\]"):
        run.plan(["kernel"], None, splits=[0], observed=[1])
    with pytest.raises(InputError, match="unknown task 'lora': expected one of hpobench-car, "):
        run.plan(["kernel"], ["lora"], splits=[0], observed=[12])


@pytest.mark.usefixtures("in_process", "tiny", "one_thread")
def test_what_was_interrupted_goes_on(
    problem: Problem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ("--questions", "kernel,pooling", "--tasks", "lora-10,hpobench-car")
    call(monkeypatch, tmp_path, *options, "--minutes", "0")
    assert "10 fits, 10 to make; left not known yet" in (text := capsys.readouterr().err)
    assert "reading 2 times 64 configurations" in text  # one space, two poolings
    assert "10 fits were not begun" in text
    call(monkeypatch, tmp_path, *options)
    found = list(journal.read(tmp_path))
    assert [r["error"] for r in found] == [None] * 10
    assert {r["method"] for r in found} == {
        "sum", "text", "numeric", "sum-pooling-mean", "text-pooling-mean",
    }  # fmt: skip
    assert "[10/10] " in capsys.readouterr().err
    (tmp_path / "sum.journal.jsonl").unlink()
    call(monkeypatch, tmp_path, *options, "--dry-run")
    assert "10 fits, 2 to make; left 0 min" in capsys.readouterr().err


@pytest.mark.usefixtures("in_process")
def test_what_failed_is_tried_again(
    problem: Problem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ("--questions", "derived", "--tasks", "lora-10")
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="2 fits failed"):
        patch.setattr(evaluate, "fit", lambda *_: 1 / 0)
        call(monkeypatch, tmp_path, *options)
    assert "FAILED ZeroDivisionError" in capsys.readouterr().err
    call(monkeypatch, tmp_path, *options)
    assert "2 fits, 2 to make" in capsys.readouterr().err
    table = collect.table_of(collect.known(tmp_path))
    assert len(table) == 2 and table["error"].isna().all() and table["nlpd"].notna().all()


@pytest.mark.usefixtures("in_process", "problem", "tiny", "one_thread")
def test_a_model_that_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(texts.LLMS, "minilm", lambda: tmp_path / "nowhere.gguf")
    with pytest.raises(SystemExit):
        call(monkeypatch, tmp_path, "--questions", "llm", "--tasks", "lora-10")
    assert "nowhere.gguf" in capsys.readouterr().err


def test_unknown_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        call(monkeypatch, tmp_path, "--questions", "colour")
    assert "unknown question 'colour'" in capsys.readouterr().err


@pytest.mark.usefixtures("tiny", "one_thread")
@pytest.mark.parametrize("method", ["sum-training-both", "numeric-transform-power", "numeric"])
def test_one_fit(problem: Problem, method: str) -> None:
    found = evaluate.run(Plan(method, "lora-10", 10, 1), None)
    assert found["error"] is None
    assert (found["method"], found["n_observed"], found["split"]) == (method, 10, 1)
    assert all(isinstance(found[name], float) for name in evaluate.MEASURES)
    assert -1 <= found["spearman"] <= 1 and 0 <= found["percentile"] <= 1
    json.dumps(found)


class TestCollect:
    def collect(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> pandas.DataFrame:
        monkeypatch.setattr(sys, "argv", ["collect", "--results", str(folder)])
        collect.main()
        return collect.read(folder / collect.TABLE_NAME)

    def test_the_later_one_is_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        failed = dict.fromkeys([*evaluate.MEASURES, "moved"]) | {"error": "Traceback"}
        journal.append(tmp_path, record())
        journal.append(tmp_path, record(split=1, **failed))
        first = self.collect(monkeypatch, tmp_path)
        assert first["error"].isna().tolist() == [True, False]
        (tmp_path / "sum.journal.jsonl").unlink()
        plans = [Plan("sum", "lora-10", 12, split) for split in range(3)]
        assert run.missing(plans, collect.known(tmp_path)) == plans[1:]
        journal.append(tmp_path, record(split=1, nlpd=0.25))
        table = self.collect(monkeypatch, tmp_path)
        assert table["nlpd"].tolist() == [0.5, 0.25]
        assert table["error"].isna().all()
        assert json.loads(table["versions"][0]) == {"optuna": "5.0.0"}

    def test_no_table(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"benchmarks\.prediction\.collect"):
            collect.read(tmp_path / "prediction.parquet")
        with pytest.raises(InputError, match="is not a table of predictions: it lacks method, "):
            collect.read(Path("benchmarks/lora_table/tables/cpu.parquet"))
