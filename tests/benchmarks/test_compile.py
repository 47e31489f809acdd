"""Whether torch.compile pays: on a tiny model whose graphs are traced but not made into C++."""

from __future__ import annotations

from collections.abc import Iterator
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from benchmarks import compile as compiling
from benchmarks import training
from optuna_llmbo.lora import LoRAObjective


DOCS = Path(__file__).parents[2] / "docs" / "benchmarks" / "training.md"


@pytest.fixture(autouse=True, scope="module")
def always_one_thread(one_thread: None) -> Iterator[None]:
    yield


@pytest.mark.long
def test_the_same_trials_compiled(tiny_llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same losses; trials that are alike share the graphs, and nothing of it stays behind."""
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    rows = [{"prompt": f"count on from {i}", "response": f"{i + 1}"} for i in range(24)]
    objective = LoRAObjective(
        tiny_llm,
        datasets.Dataset.from_list(rows),
        space=training.CASES["small"],
        proxy=0.5,
        reports=1,
        device="cpu",
        dtype=torch.float32,
    )
    ways = {way: compiling.measure(objective, 2, way) for way in compiling.WAYS}
    without = [trial["loss"] for trial in ways["none"]]
    assert len(set(without)) == 2
    for way in ("layers", "body"):
        assert [trial["loss"] for trial in ways[way]] == pytest.approx(without, rel=1e-4)
        graphs = [trial["graphs"] for trial in ways[way]]
        assert graphs[0] > 0 == sum(graphs[1:])
    assert all(trial["graphs"] == 0 for trial in ways["none"])
    assert all(
        module._compiled_call_impl is None for module in objective.prepare().model.modules()
    )
    assert "| small | body | 8, 8 |" in compiling.report({"cases": {"small": ways}})


def trial(seconds: float, **changes: Any) -> dict[str, Any]:
    values = {"rank": 8, "steps": 10, "loss": 3.0, "graphs": 0, "seconds": 99.0}
    return values | {"cpu_seconds": seconds} | changes


def test_the_table_says_when_it_pays() -> None:
    ways = {
        "none": [trial(10.0), trial(10.0), trial(10.0)],
        "layers": [trial(110.0, graphs=4), trial(8.0), trial(8.0, loss=3.5)],
        "body": [trial(50.0, graphs=2), trial(11.0), trial(11.0)],
    }
    assert compiling.break_even(ways, "layers") == pytest.approx((100, 0.8, 500))
    text = compiling.report({"cases": {"small": ways}})
    assert "| small | layers | 8, 8, 8 | 110.0, 8.0, 8.0 | 4.20 | 4, 0, 0 | 5.0e-01 |" in text
    assert "| layers | 100.0 | 0.80 | 500 |" in text
    assert "| body | 40.0 | 1.10 | never |" in text


def test_the_tables_stand_in_the_docs() -> None:
    text = DOCS.read_text()
    for name in ("small", "mixed"):
        result = json.loads((compiling.RESULTS / f"{name}.json").read_text())
        assert compiling.report(result) in text
    plain = json.loads((compiling.RESULTS / "float32.json").read_text())["cases"]["small"]["none"]
    assert ", ".join(f"{trial['loss']:.3f}" for trial in plain) in text
