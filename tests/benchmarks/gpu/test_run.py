"""The command: processes, budgets, files, and the page that is made of them."""

from __future__ import annotations

from argparse import Namespace
import json
import multiprocessing
import os
from pathlib import Path
import subprocess
import sys
import time
from typing import Any

import pytest
import torch

from benchmarks import device as devices
from benchmarks.gpu import report
from benchmarks.gpu import run as running
from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.record import FAILED
from benchmarks.gpu.record import LEFT_OUT
from benchmarks.gpu.record import NO_TIME
from benchmarks.gpu.record import OUT_OF_MEMORY
from benchmarks.gpu.record import Record
from optuna_llmbo.errors import InputError


README = Path(__file__).parents[3] / "README.md"
DOCS = Path(__file__).parents[3] / "docs" / "benchmarks" / "gpu.md"


SLUG = "-".join(devices.name(torch.device("cpu")).lower().split())
"""The folder of the CPU's results."""


def options(folder: Path, model: Path, **changes: Any) -> Namespace:
    given = {
        "device": "cpu",
        "size": "tiny",
        "llm": str(model),
        "data": "stdlib-docstrings",
        "minutes": 8.0,
        "commit": "abc",
        "save": folder,
    }
    return Namespace(**given | changes)


@pytest.mark.long
def test_the_command(tiny_llm: Path, tmp_path: Path) -> None:
    """What fails is said and costs the other parts nothing; those of another run are kept."""
    folder = tmp_path / SLUG
    folder.mkdir()
    earlier = {"cells": {"reading": {LEFT_OUT: "why"}}, "complete": True, "ended": None}
    earlier |= {"process_seconds": 1.0, "commit": "abc", "date": "2026-12-01"}
    (folder / "reading.json").write_text(json.dumps(earlier))
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--size", "tiny"]
    command += ["--save", str(tmp_path), "--llm", str(tiny_llm), "--data", "no-such.jsonl"]
    command += ["--parts", "memory,limits"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    result = json.loads(folder.with_suffix(".json").read_text())
    assert list(result["parts"]) == ["limits", "memory", "reading"]
    assert result["parts"]["reading"] == earlier
    assert result["parts"]["limits"]["complete"] and not result["parts"]["memory"]["complete"]
    assert "no-such.jsonl" in result["parts"]["memory"]["ended"]
    assert result["versions"]["torch"] == torch.__version__ and "commit" in result
    kept = json.loads((folder / "limits.json").read_text())
    assert kept == result["parts"]["limits"]
    assert "- all that would have followed: its process ended with 1" in ended.stdout
    assert ended.stdout.count("Not measured.") == len(PARTS) - 3
    assert not list(tmp_path.rglob("*.log")) and not list(tmp_path.rglob("*.new"))


@pytest.mark.long
def test_without_time_nothing_is_begun(tiny_llm: Path, tmp_path: Path) -> None:
    """What an earlier run has measured is kept."""
    folder = tmp_path / SLUG
    folder.mkdir()
    earlier: dict[str, Any] = {"cells": {"copy": {}}, "complete": True, "ended": None}
    earlier |= {"process_seconds": 1.0, "commit": "earlier"}
    (folder / "limits.json").write_text(json.dumps(earlier))
    result = running.run(["limits", "training"], options(tmp_path, tiny_llm, minutes=0.0))
    assert result["parts"]["limits"] == earlier
    assert result["parts"]["training"]["ended"] == NO_TIME
    assert result["parts"]["training"]["commit"] == "abc"
    assert not any(map(running.has_failed, result["parts"].values()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda:99"}, "there is no such device here"),
        ({"size": "full"}, "--size tiny tries the command out"),
        ({"size": "huge"}, "--size must be one of full, tiny"),
        ({"llm": "no such model"}, "no such model"),
        ({"save": None}, "give a folder with --save"),
    ],
)
def test_mistakes(changes: dict[str, Any], message: str, tiny_llm: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        running.run(["limits"], options(tmp_path, tiny_llm, **changes))


def test_a_part_that_is_not_there(tiny_llm: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--parts must be one of limits, "):
        running.run(["limit"], options(tmp_path, tiny_llm))


def _begins_another(path: Path) -> None:
    os.setsid()
    child = subprocess.Popen(["sleep", "600"])
    path.write_text(str(child.pid))
    time.sleep(600)


def test_a_part_that_takes_too_long_is_stopped_with_what_it_started(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    process = multiprocessing.get_context("fork").Process(target=_begins_another, args=(path,))
    process.start()
    while not path.exists() or not path.read_text():
        time.sleep(0.01)
    (tmp_path / "part.new").touch()
    assert running._end(process, tmp_path / "part.json") == running.STOPPED
    assert [file.name for file in tmp_path.iterdir()] == ["pid"]
    stat = Path(f"/proc/{path.read_text()}/stat")
    assert not stat.exists() or stat.read_text().split()[2] in "ZX"


def test_what_a_cell_comes_to(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "part.json"
    record = Record(path, {"commit": "abc"}, time.time() + 100)

    def lacks() -> dict[str, Any]:
        raise torch.OutOfMemoryError("2 GiB")

    def needs() -> dict[str, Any]:
        raise ImportError("no package")

    def breaks() -> dict[str, Any]:
        raise KeyError("shape")

    assert record.measure("works", lambda: {"value": 1}) is not None
    for name, work in {"lacks": lacks, "needs": needs, "breaks": breaks}.items():
        assert record.measure(name, work) is None
    assert record.measure("long", breaks, needs=1000) is None
    saved = json.loads(path.read_text())
    cells = saved["cells"]
    assert cells["works"]["value"] == 1 and saved["commit"] == "abc"
    assert cells["lacks"][LEFT_OUT] == OUT_OF_MEMORY
    assert cells["needs"][LEFT_OUT] == "no package"
    assert cells["breaks"][FAILED] == "KeyError: 'shape'"
    assert "breaks" in "".join(cells["breaks"]["traceback"])
    assert cells["long"][LEFT_OUT] == NO_TIME
    assert not saved["complete"]
    record.complete()
    assert json.loads(path.read_text())["complete"]


def test_what_counts_as_a_failure() -> None:
    fine = {"cells": {"a": {"value": 1}, "b": {LEFT_OUT: "why"}}, "ended": None}
    assert not running.has_failed(fine)
    assert not running.has_failed(fine | {"ended": running.STOPPED})
    assert running.has_failed(fine | {"ended": "its process ended with -9: no word"})
    for cell in ({FAILED: "KeyError"}, {"exit_code": 1}):
        assert running.has_failed(fine | {"cells": {"a": cell}})


def test_the_page_says_what_is_not_measured() -> None:
    part: dict[str, Any] = {
        "cells": {"copy": {"bytes_per_second": 4.3e12}, "float32": {FAILED: "Error: x"}}
    }
    part |= {"complete": False, "ended": running.STOPPED, "process_seconds": 15.2}
    part |= {"commit": "abc", "date": "2026-12-01"}
    device = {"name": "NVIDIA Test", "driver": "580.1", "cuda": "13.0"}
    result = {"device": device, "versions": {"torch": "2.13.0"}, "parts": {"limits": part}}
    text = report.chapter(result)
    assert "## NVIDIA Test\n\ndriver 580.1; CUDA 13.0; torch 2.13.0." in text
    assert "Commit abc, 2026-12-01; 15 seconds." in text
    assert "| copy, bytes read and written | 4.30e+12 B/s |" in text
    assert "- float32: it failed: Error: x\n- all that would have followed: its time was" in text
    assert "### torch.compile\n\nNot measured." in text


def test_the_page_stands_in_the_docs() -> None:
    page = report.page(running.RESULTS)
    assert page in DOCS.read_text()
    sentence = "Nothing has been measured on a GPU yet"
    assert (sentence in README.read_text()) == page.startswith(report.NOTHING)
