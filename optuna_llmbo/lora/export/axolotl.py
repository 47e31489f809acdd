"""Axolotl: `train.yml` for `axolotl train train.yml`, and the script that makes its data."""

from __future__ import annotations

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.export.comments import head
from optuna_llmbo.lora.export.data import commands
from optuna_llmbo.lora.export.data import data_files
from optuna_llmbo.lora.export.facts import Facts
from optuna_llmbo.lora.export.facts import refuse
from optuna_llmbo.lora.export.facts import refuse_decay_of_magnitude
from optuna_llmbo.lora.export.facts import refuse_tied_modules
from optuna_llmbo.lora.export.facts import whole_alpha
from optuna_llmbo.lora.export.hf_trainer import OPTIMIZERS
from optuna_llmbo.lora.export.hf_trainer import SCHEDULES
from optuna_llmbo.lora.export.yaml_text import document
from optuna_llmbo.lora.export.yaml_text import Scalar
from optuna_llmbo.lora.export.yaml_text import Value
from optuna_llmbo.lora.train import MAX_GRADIENT_NORM


_TOOL = "Axolotl"
_COMMAND = "axolotl train train.yml"


def files(facts: Facts) -> dict[str, str]:
    """The files by name.

    Raises:
        InputError: if Axolotl cannot express the recipe: biases, an alpha that is no whole
            number, whole modules that share their weight, and weight decay with two rates, for its
            LoRA+ optimizer decays nothing.
    """
    refuse(facts, _TOOL, {"bias": ("none",)})
    refuse_decay_of_magnitude(facts, _TOOL)
    refuse_tied_modules(facts, _TOOL)
    recipe = facts.recipe
    if recipe.lr_ratio != 1.0 and recipe.weight_decay > 0:
        raise InputError(
            f"weight_decay={recipe.weight_decay:g} with lr_ratio={recipe.lr_ratio:g}: {_TOOL} "
            "leaves the decay out where there are two rates. Choose a trial without decay."
        )
    values = _model_and_data(facts) | _adapter(facts) | _training(facts)
    return {
        "train.yml": document(head(facts, _TOOL, commands(facts, _COMMAND)), values),
        **data_files(facts, _TOOL, "segments"),
    }


def _model_and_data(facts: Facts) -> dict[str, Value]:
    values: dict[str, Value] = {
        "base_model": facts.model,
        "datasets": [_dataset("train")],
        "val_set_size": 0.0,
        "sequence_len": facts.max_length,
        "sample_packing": False,
        "train_on_inputs": False,
        "output_dir": "output",
    }
    if facts.validation is not None:
        values |= {
            "test_datasets": [_dataset("validation")],
            "evals_per_epoch": 1,
            "eval_batch_size": facts.micro_batch_size,
        }
    return values


def _dataset(name: str) -> dict[str, Scalar]:
    return {
        "path": f"data/{name}.jsonl",
        "ds_type": "json",
        "split": "train",  # what a file without splits is called
        "type": "input_output",
    }


def _adapter(facts: Facts) -> dict[str, Value]:
    recipe, modules = facts.recipe, facts.target_modules
    values: dict[str, Value] = {
        "adapter": "lora",
        "lora_r": recipe.rank,
        "lora_alpha": whole_alpha(facts, _TOOL),
        "lora_dropout": recipe.lora_dropout,
        "peft_use_rslora": recipe.variant == "rslora",
        "peft_use_dora": recipe.variant == "dora",
        "peft_init_lora_weights": facts.init_lora_weights,
    }
    if modules == "all-linear":
        values["lora_target_linear"] = True
    else:
        values["lora_target_modules"] = list(modules)
    if facts.modules_to_save:
        values["lora_modules_to_save"] = list(facts.modules_to_save)
    if recipe.lr_ratio != 1.0:
        values["loraplus_lr_ratio"] = recipe.lr_ratio
    return values


def _training(facts: Facts) -> dict[str, Value]:
    recipe = facts.recipe
    return {
        "num_epochs": recipe.epochs,
        "micro_batch_size": facts.per_device_batch_size,
        "gradient_accumulation_steps": facts.accumulation_steps,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler": SCHEDULES[recipe.schedule],
        "warmup_steps": facts.warmup_steps,
        "optimizer": OPTIMIZERS[recipe.optimizer],
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": MAX_GRADIENT_NORM,
        "bf16": facts.dtype == "bfloat16",
        "fp16": False,
        "seed": facts.seed,
    }
