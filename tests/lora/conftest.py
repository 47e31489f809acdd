"""Fixtures of the LoRA tests: a tiny model, a small data set, one thread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.lora import tokens
from optuna_llmbo.lora.records import Pair
from optuna_llmbo.lora.tokens import Example


N_ROWS = 60


@pytest.fixture(autouse=True, scope="module")
def always_one_thread(one_thread: None) -> None:
    """In all tests of this folder."""


def rows(n: int, start: int = 0) -> list[dict[str, Any]]:
    """Counting exercises, all different, of different lengths."""
    numbers = range(start, start + n)
    return [
        {"prompt": f"count on from {i}", "response": f"{i + 1} " * (i % 4 + 1)} for i in numbers
    ]


@pytest.fixture(scope="session")
def dataset() -> datasets.Dataset:
    return datasets.Dataset.from_list(rows(N_ROWS))


@pytest.fixture(scope="session")
def tiny(tiny_llm: Path) -> LanguageModel:
    """The tiny model in float32. Whoever changes it changes it back."""
    return load_model(resolve_source(tiny_llm), device="cpu", dtype=torch.float32)


@pytest.fixture(scope="session")
def examples(tiny: LanguageModel) -> list[Example]:
    pairs = [Pair(**row) for row in rows(24)]
    return tokens.encode(pairs, tiny.tokenizer, 512)


@pytest.fixture
def make_objective(tiny_llm: Path, dataset: datasets.Dataset) -> Callable[..., LoRAObjective]:
    return objective_maker(tiny_llm, dataset)


def objective_maker(model: Path, dataset: datasets.Dataset) -> Callable[..., LoRAObjective]:
    """Makes quick objectives on a tiny model: 27 training and 6 validation examples."""

    def make(**changes: Any) -> LoRAObjective:
        settings: dict[str, Any] = {
            "model": model,
            "train": dataset,
            "proxy": 0.5,
            "device": "cpu",
            "dtype": torch.float32,
        }
        return LoRAObjective(**{**settings, **changes})

    return make
