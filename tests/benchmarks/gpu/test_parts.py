"""Every part, at sizes for a CPU: what is measured there, what is left out, and what is shown."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import json
from pathlib import Path
import time
from typing import Any

import pytest
import torch

from benchmarks import precision
from benchmarks.gpu import compiling
from benchmarks.gpu import memory
from benchmarks.gpu.part import Setting
from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.record import FAILED
from benchmarks.gpu.record import LEFT_OUT
from benchmarks.gpu.record import measured
from benchmarks.gpu.record import Record
from benchmarks.gpu.sizes import FULL
from benchmarks.gpu.sizes import LONG
from benchmarks.gpu.sizes import SHORT
from benchmarks.gpu.sizes import TINY


Measure = Callable[[str], dict[str, Any]]


@pytest.fixture(autouse=True, scope="module")
def always_one_thread(one_thread: None) -> Iterator[None]:
    yield


@pytest.fixture
def measure(tiny_llm: Path, tmp_path: Path) -> Measure:
    """Measures a part on the CPU; no cell may fail."""
    data = tmp_path / "data.jsonl"
    rows = [{"prompt": f"count on from {i}", "response": f"{i + 1}"} for i in range(40)]
    data.write_text("\n".join(map(json.dumps, rows)))

    def run(name: str) -> dict[str, Any]:
        path = tmp_path / f"{name}.json"
        setting = Setting(torch.device("cpu"), TINY, str(tiny_llm), str(data))
        PARTS[name].measure(setting, Record(path, {}, time.time() + 1000))
        record: dict[str, Any] = json.loads(path.read_text())
        assert [cell for cell in record["cells"].values() if FAILED in cell] == []
        return record

    return run


def left_out(record: dict[str, Any]) -> dict[str, str]:
    return {k: cell[LEFT_OUT] for k, cell in record["cells"].items() if LEFT_OUT in cell}


def test_all_budgets_fit_into_eight_minutes() -> None:
    assert sum(part.seconds for part in PARTS.values()) <= 460


def test_limits(measure: Measure) -> None:
    record = measure("limits")
    assert left_out(record) == {} and len(record["cells"]) == 3
    (table,) = PARTS["limits"].tables(record)
    assert "| matrix product, bfloat16 |" in table and "B/s |" in table


@pytest.mark.long
def test_training(measure: Measure) -> None:
    record = measure("training")
    assert {name.split(", ")[-1] for name in left_out(record)} == {
        *("flash_attention_2", "flex_attention", "4bit", "8bit")
    }
    cells = measured(record)
    for load in (SHORT, LONG):
        ways = [f"packed, {n}" for n in TINY.loads[load].packs]
        some = [cells[f"Llama 1B, {load}, {way}"] for way in ["one at a time", "reload", *ways]]
        assert len({cell["losses"][0] for cell in some}) == 1  # all begin with the same batch
        for cell in some:
            assert cell["tokens"] == cell["trials"] * some[1]["tokens"]
            assert cell["steps"] == cell["trials"] * TINY.loads[load].steps
    drops = [cells[f"Llama 1B, dropout, {way}"] for way in ("one at a time", "packed, 2")]
    assert sorted(drops[0]["losses"]) == pytest.approx(sorted(drops[1]["losses"]), rel=1e-4)
    assert drops[0]["losses"] != cells["Llama 1B, short, one at a time"]["losses"]
    *_, table = PARTS["training"].tables(record)
    assert len(table.splitlines()) == 2 + len(cells) - 1
    assert "| Llama 1B | short | one at a time |" in table and " | 1.00 | " in table


@pytest.mark.long
def test_models(measure: Measure) -> None:
    record = measure("models")
    assert left_out(record) == {}
    ways = [name for name in measured(record) if name.startswith("Qwen 0.5B, ")]
    assert len(ways) == 3 and f"Qwen 0.5B, short, packed, {max(TINY.loads[SHORT].packs)}" in ways
    *_, table = PARTS["models"].tables(record)
    assert len(table.splitlines()) == 2 + 3


@pytest.mark.long
def test_memory(measure: Measure) -> None:
    """Of four examples one fits, then none; each trial ends as it must, with the same numbers."""
    record = measure("memory")
    assert list(left_out(record)) == [memory.FULL]
    cells = measured(record)
    whole, less = cells[memory.WHOLE], cells[memory.BACKED_OFF]
    assert (whole["examples_a_pass"], less["examples_a_pass"]) == (4, 1)
    assert less["peak"] < whole["peak"]
    assert cells[memory.HOPELESS]["states"] == ["PRUNED"]
    assert cells[memory.AFTER]["losses"] == whole["losses"]
    for name in (memory.SINGLE, memory.BACKED_OFF, memory.AFTER):
        assert cells[name]["losses"] == pytest.approx(whole["losses"], abs=1e-5)
        assert cells[name]["tokens"] == whole["tokens"]
    assert cells[memory.GRADIENT]["relative_difference"] < 1e-5
    pack, scarce = cells[memory.PACKED], cells[memory.PACKED_BACKED_OFF]
    assert scarce["peak"] < pack["peak"]
    assert scarce["losses"] == pytest.approx(pack["losses"], abs=1e-5)
    table, said = PARTS["memory"].tables(record)
    assert "| less than it needs | complete | 1 |" in table
    assert "pruned (out of memory with one example at once)" in table
    assert "differs by" in said


@pytest.mark.long
def test_reading(measure: Measure) -> None:
    record = measure("reading")
    assert left_out(record) == {}
    assert measured(record)["float32"]["max_abs_diff"] < 1e-4
    ways, facts = PARTS["reading"].tables(record)
    assert "| float32 | trie, first read | 24 |" in ways
    assert len(facts.splitlines()) == 2 + 2


@pytest.mark.long
def test_precision(measure: Measure) -> None:
    record = measure("precision")
    assert left_out(record) == {}
    table, _ = PARTS["precision"].tables(record)
    *_, last = table.splitlines()
    *_, kept = precision.table(json.loads(precision.RESULTS.read_text())).splitlines()
    assert last.startswith("| 0.002 |") and kept.startswith("| 0.002 |")
    assert last.split(" | ")[-1] == kept.split(" | ")[-1]  # the CPU's


@pytest.mark.long
def test_suggestion(measure: Measure) -> None:
    record = measure("suggestion")
    assert left_out(record) == {}
    (table,) = PARTS["suggestion"].tables(record)
    assert len(table.splitlines()) == 2 + 4 and "| GPSampler | 5 |" in table


@pytest.mark.long
def test_compile(measure: Measure) -> None:
    record = measure("compile")
    assert left_out(record) == {}
    for load in compiling.LOADS:
        plain, layers = (
            record["cells"][f"Llama 1B, {load}, {way}"]
            for way in ("one at a time", compiling.LAYERS)
        )
        assert layers["losses"] == pytest.approx(plain["losses"], rel=1e-4)
        assert layers["seconds_first"] > layers["seconds"]
    *_, table = PARTS["compile"].tables(record)
    assert len(table.splitlines()) == 2 + len(compiling.LOADS)


@pytest.mark.long
def test_marked_tests(measure: Measure) -> None:
    record = measure("tests")
    (cell,) = record["cells"].values()
    assert cell["exit_code"] == 0 and len(cell["tests"]) == 2
    if not torch.cuda.is_available():
        assert {test["outcome"] for test in cell["tests"]} == {"skipped"}
        assert "| skipped | no CUDA device |" in PARTS["tests"].tables(record)[0]


@pytest.mark.parametrize("name", PARTS)
def test_nothing_measured_makes_no_table(name: str) -> None:
    record = {"cells": {"some": {LEFT_OUT: "why"}}, "loads": {}, "rates": []}
    assert PARTS[name].tables(record) == []


def test_the_full_size_names_the_models_of_the_page() -> None:
    assert list(FULL.shapes) == ["Llama 1B", "Qwen 0.5B", "Llama 3B", "Llama 8B"]
    assert all(not changes for changes in FULL.shapes.values())
