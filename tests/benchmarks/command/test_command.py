"""The search over LLaMA-Factory: its kept result, its page, and how it kills a search."""

from __future__ import annotations

import json
from pathlib import Path
import statistics
import sys
from typing import Any

import pytest

from benchmarks.command import killing
from benchmarks.command import run as benchmark
from benchmarks.command import tool as tool_module
from benchmarks.command.final import best_of
from benchmarks.command.final import default_of
from benchmarks.command.final import measure
from benchmarks.command.report import report
from benchmarks.command.tool import Missing
from benchmarks.command.tool import read_settings
from benchmarks.command.tool import RECIPE
from benchmarks.command.tool import Tool


PAGE = Path(__file__).parents[3] / "docs" / "benchmarks" / "command.md"
FAKE = Path(__file__).parent / "fake_llamafactory.py"


def test_the_tables_are_in_the_documentation() -> None:
    assert report(json.loads(benchmark.RESULTS.read_text())) in PAGE.read_text()


def test_nothing_is_lost_doubled_or_left_running() -> None:
    record = json.loads(benchmark.RESULTS.read_text())
    finished = [t for t in record["trials"] if t["state"] in ("COMPLETE", "PRUNED")]
    assert len(finished) == record["n_trials"]
    assert len({json.dumps(trial["params"]) for trial in finished}) == len(finished)
    assert [trial["number"] for trial in record["trials"]] == list(range(len(record["trials"])))
    assert all(trial["state"] != "RUNNING" for trial in record["trials"])
    assert len(record["kills"]) == 10 and record["left_running"] == 0
    for kill in record["kills"]:
        assert not kill["lost"] and not kill["changed"] and kill["left"] == 0


def test_the_best_and_the_control_are_those_of_the_trials() -> None:
    record = json.loads(benchmark.RESULTS.read_text())
    complete = [trial for trial in record["trials"] if trial["state"] == "COMPLETE"]
    assert record["best"] == min(complete, key=lambda trial: trial["value"])["number"]
    params = next(t for t in record["trials"] if t["number"] == record["default"])["params"]
    config = read_settings(RECIPE / "train.yaml")
    assert params["learning_rate"] == config["learning_rate"]
    assert params["batch_size"] == config["gradient_accumulation_steps"]
    assert params["lora_rank"] == config["lora_rank"]
    assert params["alpha_ratio"] == config["lora_alpha"] / config["lora_rank"]


def test_what_the_page_says() -> None:
    record = json.loads(benchmark.RESULTS.read_text())
    complete = [trial for trial in record["trials"] if trial["state"] == "COMPLETE"]
    best = next(trial for trial in complete if trial["number"] == record["best"])
    assert best["params"]["batch_size"] == 1
    assert 11.5 < best["params"]["learning_rate"] / 1e-4 < 12
    near = [t for t in complete if 9e-4 <= t["params"]["learning_rate"] <= 1.3e-3]
    assert len(near) > 3 and all(t["value"] - best["value"] < 0.07 for t in near)
    for name in ("default", "best"):
        losses = record["final"][name]
        assert len(losses) == 2 and max(losses) - min(losses) < 0.01
    assert all(kill["seconds_until_gone"] < 0.5 for kill in record["kills"])
    assert [i for i, kill in enumerate(record["kills"], 1) if not kill["processes"]] == [4]
    given_up = next(trial for trial in record["trials"] if trial["number"] == 9)
    same = [t for t in record["trials"] if t["params"] == given_up["params"]]
    assert [t["number"] for t in same] == [1, 4, 6, 9] and all(t["killed"] for t in same)
    late = [t["number"] for t in record["trials"] if t["reason"] == "by the pruner at 100%"]
    assert late == [14, 15]


def test_it_says_where_the_tool_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Missing, match="install LLaMA-Factory"):
        Tool(tmp_path, tmp_path)
    monkeypatch.setattr(sys, "argv", ["command", "--llamafactory", str(tmp_path)])
    benchmark.main()
    assert capsys.readouterr().out.startswith("skipped: ")


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    """A tool that writes what LLaMA-Factory writes."""
    program = tmp_path / "environment" / "bin" / "llamafactory-cli"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
    program.chmod(0o755)
    (tmp_path / "work").mkdir()
    return Tool(tmp_path / "environment", tmp_path / "work")


@pytest.mark.long
def test_a_search_is_killed_goes_on_and_is_measured(
    tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(killing, "LONGEST", 1.5)
    monkeypatch.setattr(tool_module, "HEARTBEAT", 1)
    killing.search(tool, n_trials=4, n_kills=1)
    (kill,) = killing.kept_kills(tool)
    assert kill["finished"] >= 1 and not kill["lost"] and not kill["changed"]
    assert kill["left"] == 0 and tool.running() == []
    finished = [t for t in killing.trials(tool) if t.state in killing._FINISHED]
    assert len(finished) == 4
    record: dict[str, Any] = {
        "n_trials": 4,
        "trials": [benchmark.plain(trial) for trial in killing.trials(tool)],
        "default": default_of(tool).number,
        "best": best_of(tool).number,
        "kills": [kill],
        "final": measure(tool, 2),
    }
    best = next(trial for trial in record["trials"] if trial["number"] == record["best"])
    assert record["final"]["best"] == [best["value"]] * 2  # the fake has no seed and no data
    assert f"{statistics.mean(record['final']['default']):.3f}" in report(record)


@pytest.mark.long
def test_a_search_that_ends_before_it_was_killed_is_an_error(tool: Tool) -> None:
    killing.search(tool, n_trials=1, n_kills=0)
    with pytest.raises(RuntimeError, match="more --trials"):
        killing.search(tool, n_trials=1, n_kills=1)
