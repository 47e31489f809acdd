"""A recipe in the configurations of peft, transformers and TRL."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from pathlib import Path
from typing import Any

import peft
import pytest
import transformers
import trl

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.trainer import dpo_config
from optuna_llmbo.trainer import lora_config
from optuna_llmbo.trainer import sft_config
from optuna_llmbo.trainer import training_arguments
from optuna_llmbo.trainer import trl_import
from tests.trainer.conftest import tiny_model


RECIPE = LoRARecipe(
    rank=6,
    lora_alpha=9.5,
    lora_dropout=0.1,
    batch_size=12,
    learning_rate=3e-4,
    warmup_ratio=0.2,
    schedule="cosine",
    weight_decay=0.01,
    epochs=2,
)
CPU = {"use_cpu": True, "bf16": False}


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (training_arguments, transformers.TrainingArguments),
        (sft_config, trl.SFTConfig),
        (dpo_config, trl.DPOConfig),
    ],
)
def test_arguments(make: Callable[..., Any], kind: type, tmp_path: Path) -> None:
    made: Any = make(RECIPE, n_examples=100, at_once=5, output_dir=str(tmp_path), seed=3, **CPU)
    assert made.__class__.__name__ == kind.__name__  # and not one that it builds on
    assert (made.per_device_train_batch_size, made.gradient_accumulation_steps) == (4, 3)
    assert made.learning_rate == 3e-4 and made.weight_decay == 0.01 and made.num_train_epochs == 2
    assert made.lr_scheduler_type == "cosine" and made.optim == "adamw_torch_fused"
    assert made.get_warmup_steps(18) == 4 == made.warmup_steps  # 0.2 of 2 * ceil(100 / 12) steps
    assert made.seed == 3 and made.max_grad_norm == 1


@pytest.mark.parametrize("size", range(1, 40))
@pytest.mark.parametrize("at_once", [1, 7, 8])
def test_the_batch_size_is_exact(size: int, at_once: int, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, batch_size=size)
    made = training_arguments(recipe, n_examples=99, at_once=at_once, output_dir=str(tmp_path), **CPU)  # fmt: skip  # noqa: E501
    assert made.per_device_train_batch_size * made.gradient_accumulation_steps == size
    assert made.per_device_train_batch_size <= at_once


def test_what_is_added_goes_first(tmp_path: Path) -> None:
    made = sft_config(RECIPE, n_examples=9, output_dir=str(tmp_path), packing=True, optim="sgd", **CPU)  # fmt: skip  # noqa: E501
    assert made.packing and made.optim == "sgd"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr_ratio": 4.0}, "lr_ratio=4: arguments of the Trainer have one learning rate"),
        ({"variant": "dora"}, "weight_decay=0.01 with variant='dora'"),
    ],
)
def test_what_arguments_cannot_express(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        training_arguments(dataclasses.replace(RECIPE, **changes), n_examples=9)


def test_an_adapter() -> None:
    made = lora_config(RECIPE, target_modules=["q_proj"])
    assert isinstance(made, peft.LoraConfig)
    assert (made.r, made.lora_alpha, made.lora_dropout) == (6, 9.5, 0.1)
    assert made.target_modules == {"q_proj"} and made.task_type == "CAUSAL_LM"
    made = lora_config(dataclasses.replace(RECIPE, variant="dora", target_modules="q_proj,v_proj"))
    assert made.use_dora and not made.use_rslora and made.target_modules == {"q_proj", "v_proj"}
    assert lora_config(dataclasses.replace(RECIPE, variant="rslora")).use_rslora
    assert lora_config(RECIPE).target_modules == "all-linear"
    made = lora_config(dataclasses.replace(RECIPE, variant="pissa"))
    assert made.init_lora_weights == "pissa_niter_4"


def test_an_adapter_for_a_model(chat_llm: Path) -> None:
    model, _ = tiny_model(chat_llm)
    recipe = dataclasses.replace(RECIPE, target_modules="attention")
    wrapped = peft.get_peft_model(model, lora_config(recipe, model, lora_dropout=0.0))
    names = {n.split(".")[-4] for n, _ in wrapped.named_parameters() if "lora_A" in n}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj"}
    with pytest.raises(InputError, match="no argument 'dropout'"):
        lora_config(recipe, model, dropout=0.0)


@pytest.mark.parametrize("changes", [{"target_modules": "attention,lm_head"}, {"modules_to_save": "lm_head"}])  # fmt: skip  # noqa: E501
def test_an_adapter_that_depends_on_the_model(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"depends on the model: call lora_config\(recipe, model"):
        lora_config(dataclasses.replace(RECIPE, **changes))


def test_trl_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "trl", None)
    with pytest.raises(InputError, match=r"pip install optuna-llmbo\[trl\]"):
        trl_import.trl()
    with pytest.raises(InputError, match=r"pip install optuna-llmbo\[trl\]"):
        sft_config(RECIPE, n_examples=9)
