"""The frozen base: quantized, or with activations computed again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from optuna.trial import FixedTrial
import pytest
import torch
from transformers.models.llama import modeling_llama

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.lora.adapter import adapter
from optuna_llmbo.lora.base_model import load_base
from optuna_llmbo.lora.recipe import LoRARecipe


Make = Callable[..., LoRAObjective]


def test_checkpointing_changes_nothing_but_what_is_computed_twice(
    make_objective: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = modeling_llama.LlamaMLP.forward
    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", lambda *a: calls.append(1) or real(*a))  # type: ignore[func-returns-value]
    losses, counts = [], []
    for on in (False, True):
        objective = make_objective(gradient_checkpointing=on)
        params = {**objective.default_params, "lora_dropout": 0.2}
        calls.clear()
        losses.append(objective(FixedTrial(params)))
        counts.append(len(calls))
    assert losses[0] == losses[1]
    assert counts[1] > counts[0]


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_quantization_needs_cuda(make_objective: Make, quantization: str) -> None:
    with pytest.raises(InputError, match="needs a CUDA device, and the model is to be on cpu"):
        make_objective(quantization=quantization).prepare()


def test_unknown_quantization(make_objective: Make) -> None:
    with pytest.raises(InputError, match="quantization='3bit': expected one of 4bit, 8bit"):
        make_objective(quantization="3bit").prepare()


def test_what_needs_the_weights_as_they_are(tiny_llm: Path) -> None:
    base = load_base(tiny_llm, device="cpu", dtype=torch.float32, max_length=64).model
    base.is_quantized = True
    recipe = LoRARecipe.from_params({"variant": "pissa"})
    with pytest.raises(InputError, match="these are quantized"), adapter(base, recipe, seed=0):
        pass


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_training_on_a_quantized_base(make_objective: Make, quantization: str) -> None:
    pytest.importorskip("bitsandbytes")
    objective = make_objective(quantization=quantization, device="cuda", dtype=torch.bfloat16)
    params = {**objective.default_params, "learning_rate": 5e-3}
    assert objective(FixedTrial(params)) < objective.base_loss  # type: ignore[operator]
