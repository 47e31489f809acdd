"""Metrics by name, and those that need no file of their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.adapter import adapter
from optuna_llmbo.lora.evaluate import validation_loss
from optuna_llmbo.lora.metrics import AdapterSize
from optuna_llmbo.lora.metrics import Custom
from optuna_llmbo.lora.metrics import ExactMatch
from optuna_llmbo.lora.metrics import from_name
from optuna_llmbo.lora.metrics import Loss
from optuna_llmbo.lora.metrics.registry import NAMES
from optuna_llmbo.lora.recipe import DEFAULT
from optuna_llmbo.lora.tokens import Example


@pytest.mark.parametrize("name", NAMES)
def test_every_name(name: str, tiny: LanguageModel, examples: list[Example]) -> None:
    for library in ("sacrebleu", "rouge_score", "math_verify"):
        pytest.importorskip(library)
    metric = from_name(name)
    assert metric.name == {"rouge": "rougeL"}.get(name, name)
    smaller = ("loss", "adapter_size", "seconds")
    assert metric.direction == ("minimize" if name in smaller else "maximize")
    metric.check(tiny.model, tiny.tokenizer, examples)
    assert callable(metric)


def test_what_names_mean() -> None:
    metric = from_name("gsm8k")
    assert isinstance(metric, ExactMatch) and metric.extract == "gsm8k"


def test_unknown_names() -> None:
    with pytest.raises(
        InputError, match=r"no metric 'rougel'. Did you mean .*'rougeL'.*There are"
    ):
        from_name("rougel")
    with pytest.raises(
        InputError, match=r"no metric 'accuracy_of_things'. There are adapter_size"
    ):
        from_name("accuracy_of_things")
    with pytest.raises(InputError, match=r"needs arguments: .*MultipleChoice\(choices\)"):
        from_name("multiple_choice")


def test_adapter_size(tiny: LanguageModel, examples: list[Example]) -> None:
    size = AdapterSize()
    assert size(tiny.model, tiny.tokenizer, examples) == 0
    with adapter(tiny.model, DEFAULT, seed=0):
        layers = [m for m in tiny.model.modules() if hasattr(m, "lora_A")]
        widths = [m.in_features + m.out_features for m in layers]
        assert size(tiny.model, tiny.tokenizer, []) == DEFAULT.rank * sum(widths) > 0


def test_loss(tiny: LanguageModel, examples: list[Example]) -> None:
    assert Loss()(tiny.model, tiny.tokenizer, examples) == validation_loss(tiny.model, examples)
    with pytest.raises(InputError, match="at least one example"):
        Loss().check(tiny.model, tiny.tokenizer, [])


def test_a_users_function(tiny: LanguageModel, examples: list[Example]) -> None:
    def count(model: Any, tokenizer: Any, examples: Any) -> torch.Tensor:
        assert model is tiny.model and tokenizer is tiny.tokenizer
        return torch.tensor(len(examples))

    metric = Custom("count", "maximize", count)  # type: ignore[arg-type]
    assert metric(tiny.model, tiny.tokenizer, examples) == 24.0
    for bad in (float("nan"), None, "3"):
        with pytest.raises(InputError, match="'count' returned .*: expected a finite number"):
            Custom("count", "maximize", lambda *_, bad=bad: bad)(None, None, examples)
    with pytest.raises(InputError, match="direction must be one of minimize, maximize"):
        Custom("count", "up", count)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected a function"):
        Custom("count", "maximize", 3)  # type: ignore[arg-type]
