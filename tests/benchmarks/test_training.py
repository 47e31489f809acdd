from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from benchmarks import training
from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.lora import base_model
from optuna_llmbo.lora import LoRAObjective


@pytest.fixture(autouse=True, scope="module")
def always_one_thread(one_thread: None) -> Iterator[None]:
    yield


def test_the_same_trials_in_every_way(tiny_llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same losses; the model is loaded once, and once more for each of the reloading trials."""
    loads = []
    real = load_model

    def load(*args: Any, **options: Any) -> LanguageModel:
        loads.append(args)
        return real(*args, **options)

    for module in (base_model, training):
        monkeypatch.setattr(module, "load_model", load)
    rows = [{"prompt": f"count on from {i}", "response": f"{i + 1}"} for i in range(24)]
    objective = LoRAObjective(
        tiny_llm,
        datasets.Dataset.from_list(rows),
        space=training.CASES["mixed"],
        proxy=0.5,
        reports=1,
        device="cpu",
        dtype=torch.float32,
    )
    result = training.measure(objective, 3, {"packed, 2": 2, "packed, 3": 3})
    assert len(loads) == 1 + 2
    losses = result["one at a time"]["losses"]
    assert len(set(losses)) == 3
    assert result["reload"]["losses"] == losses[:2]
    for way in ("packed, 2", "packed, 3"):
        assert result[way]["losses"] == pytest.approx(losses, rel=1e-4)
    assert all(0 < cost["cpu_seconds"] and 0 < cost["seconds"] for cost in result.values())


def test_the_table_says_rates_and_ratios() -> None:
    ways = {
        "reload": {"trials": 2, "seconds": 60.0, "cpu_seconds": 40.0},
        "one at a time": {"trials": 8, "seconds": 120.0, "cpu_seconds": 80.0},
        "packed, 8": {"trials": 8, "seconds": 60.0, "cpu_seconds": 100.0},
    }
    text = training.table({"cases": {"small": ways}})
    assert "| small | reload | 2.0 | 0.50 | 0.50 |" in text
    assert "| small | one at a time | 4.0 | 1.00 | 1.00 |" in text
    assert "| small | packed, 8 | 8.0 | 2.00 | 0.80 |" in text
