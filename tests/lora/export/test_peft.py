from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.lora.adapter import adapter
from optuna_llmbo.lora.adapter import peft_config
from optuna_llmbo.lora.export.modules import names_of_modules
from tests.lora.export.samples import facts
from tests.lora.export.samples import written


VARIANTS: list[dict[str, Any]] = [
    {},
    {"lora_alpha": 20.4},
    {"variant": "rslora"},
    {"variant": "dora"},
    {"variant": "pissa"},
    {"variant": "olora"},
    {"variant": "lora+", "lr_ratio": 16.0},
    {"init": "gaussian"},
    {"init": "orthogonal"},
    {"target_modules": "attention"},
    {"target_modules": "mlp"},
    {"target_modules": "q_proj,v_proj"},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_peft_loads_what_a_trial_trains(
    changes: dict[str, Any], tmp_path: Path, tiny: LanguageModel, tiny_llm: Path
) -> None:
    recipe = {name: value for name, value in changes.items() if name != "target_modules"}
    named = changes.get("target_modules", "all-linear")
    modules = names_of_modules(str(tiny_llm), named)
    written(tmp_path, "peft", model=str(tiny_llm), target_modules=modules, **recipe)
    loaded = peft.LoraConfig.from_pretrained(tmp_path)
    assert loaded.base_model_name_or_path == str(tiny_llm)

    ours = dataclasses.replace(facts(**recipe).recipe, target_modules=named)
    expected = peft_config(tiny.model, ours)
    for name in ("r", "lora_alpha", "lora_dropout", "bias", "use_rslora", "use_dora"):
        assert getattr(loaded, name) == getattr(expected, name), name
    assert loaded.init_lora_weights == expected.init_lora_weights
    assert loaded.task_type == expected.task_type

    with adapter(tiny.model, ours, seed=3):
        state = adapter_state(tiny.model)
    theirs = load_model(resolve_source(tiny_llm), device="cpu", dtype=torch.float32).model
    torch.manual_seed(3)
    peft.get_peft_model(theirs, loaded)
    assert adapter_state(theirs) == state and state


def adapter_state(model: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what is trained."""
    return {n: tuple(p.shape) for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_biases(bias: str, tmp_path: Path) -> None:
    assert peft.LoraConfig.from_pretrained(written(tmp_path, "peft", bias=bias)).bias == bias
