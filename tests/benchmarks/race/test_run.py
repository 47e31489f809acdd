"""The race: order, journals, going on, and the table that is made of them."""

from __future__ import annotations

import json
from pathlib import Path
import sys
from typing import Any

import pytest

from benchmarks import parquet
from benchmarks.race import collect
from benchmarks.race import journal
from benchmarks.race import run
from benchmarks.race.study import Plan
from optuna_llmbo.errors import InputError


TASKS = "bbob-sphere-2d,bbob-ellipsoid-2d"


def call(monkeypatch: pytest.MonkeyPatch, folder: Path, *options: str) -> None:
    fixed = ["--tasks", TASKS, "--out", str(folder), "--jobs", "1"]
    monkeypatch.setattr(sys, "argv", ["run", *fixed, *options])
    run.main()


def record(**changes: Any) -> dict[str, Any]:
    values = {"task": "lora-10", "method": "tpe", "start": "plain", "seed": 0, "budget": 3}
    values |= {"values": [3.0, 1.0, 2.0], "seconds": [0.1, 0.2, 0.3], "best_params": {"x": 1}}
    values |= {"error": None, "warnings": [], "total_seconds": 1.0}
    return values | run.provenance() | changes


def test_all_of_a_seed_comes_before_the_next() -> None:
    plans = run.plan(
        ["random", "hebo"], ["lora-10", "conditional"], starts=["plain"], seeds=[3, 4], budget=6
    )
    assert [(p.seed, p.task, p.method) for p in plans] == [
        (seed, task, method)
        for seed in (3, 4)
        for task, method in (
            ("lora-10", "random"),
            ("lora-10", "hebo"),
            ("conditional", "random"),  # hebo cannot
        )
    ]


@pytest.mark.parametrize(
    ("methods", "start", "message"),
    [(["best"], "plain", "unknown method 'best'"), (["tpe"], "cold", "unknown start 'cold'")],
)
def test_unknown_names(methods: list[str], start: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run.plan(methods, ["lora-10"], starts=[start], seeds=[0], budget=1)


@pytest.mark.long
def test_an_interrupted_race_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, tmp_path, "--methods", "random", "--seeds", "1", "--budget", "3")
    path = tmp_path / "random.journal.jsonl"
    first = path.read_text()
    assert len(first.splitlines()) == 2
    path.write_text(first + first.splitlines()[0][:50])  # killed while it wrote
    options = ("--methods", "random,tpe", "--seeds", "1", "--budget")
    call(monkeypatch, tmp_path, *options, "3")
    assert path.read_text() == first + first.splitlines()[0][:50]
    assert len((tmp_path / "tpe.journal.jsonl").read_text().splitlines()) == 2
    assert "[2/2] bbob-ellipsoid-2d tpe plain seed 0: " in capsys.readouterr().err
    call(monkeypatch, tmp_path, *options, "3")
    assert "4 studies, 0 to run" in capsys.readouterr().err
    call(monkeypatch, tmp_path, *options, "4", "--dry-run")
    assert "4 studies, 4 to run" in capsys.readouterr().err
    call(monkeypatch, tmp_path, *options, "4", "--minutes", "0")
    assert "4 studies were not begun" in capsys.readouterr().err


def test_what_is_missing(tmp_path: Path) -> None:
    plan = Plan(task="lora-10", method="tpe", start="plain", seed=0, budget=3)
    assert journal.missing([plan], journal.read(tmp_path)) == [plan]
    journal.append(tmp_path, record(error="Traceback", values=[]))
    assert journal.missing([plan], journal.read(tmp_path)) == [plan]
    journal.append(tmp_path, record())
    assert journal.missing([plan], journal.read(tmp_path)) == []
    for changed in ({"budget": 4}, {"seed": 1}, {"start": "default"}, {"method": "gp"}):
        other = Plan(**{**vars(plan), **changed})
        assert journal.missing([other], journal.read(tmp_path)) == [other]


def test_what_was_collected_is_not_run_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--methods", "tpe", "--tasks", "lora-10", "--seeds", "1", "--budget", "3")
    parquet.write([collect.from_journal(record())], tmp_path / collect.TABLE_NAME, collect.SCHEMA)
    call(monkeypatch, tmp_path, *options, "--dry-run")
    assert "1 studies, 0 to run" in capsys.readouterr().err


def test_a_torn_line_is_skipped_and_not_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tpe.journal.jsonl"
    path.write_text('{"task": "lora-1')
    journal.append(tmp_path, record())
    assert list(journal.read(tmp_path)) == [record()]
    assert capsys.readouterr().err == "tpe.journal.jsonl, line 1: half written, skipped\n"


class TestCollect:
    def collect(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
        path = folder / "race.parquet"
        options = ["--journals", str(folder), "--table", str(path)]
        monkeypatch.setattr(sys, "argv", ["collect", *options])
        collect.main()
        return path

    def test_the_later_one_is_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        journal.append(tmp_path, record())
        journal.append(tmp_path, record(seed=1, error="Traceback", values=[], best_params=None))
        self.collect(monkeypatch, tmp_path)
        (tmp_path / "tpe.journal.jsonl").unlink()
        journal.append(tmp_path, record(seed=1, values=[5.0, 6.0, 7.0]))
        journal.append(tmp_path, record(method="gp", values=[8.0]))
        table = collect.read(self.collect(monkeypatch, tmp_path))
        assert table[["method", "seed"]].to_numpy().tolist() == [["gp", 0], ["tpe", 0], ["tpe", 1]]
        assert [v.tolist() for v in table["values"]] == [[8.0], [3.0, 1.0, 2.0], [5.0, 6.0, 7.0]]
        assert table["error"].isna().all()
        assert json.loads(table["best_params"][1]) == {"x": 1}
        assert json.loads(table["versions"][0]) == run.provenance()["versions"]

    def test_no_table(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"benchmarks\.race\.collect"):
            collect.read(tmp_path / "race.parquet")
        (tmp_path / "race.parquet").write_bytes(
            (Path("benchmarks/lora_table/tables/cpu.parquet")).read_bytes()
        )
        with pytest.raises(InputError, match="is not a table of a race: it lacks task, method"):
            collect.read(tmp_path / "race.parquet")
