"""TRL: `sft.yaml` for `trl sft --config sft.yaml`, and the script that makes its data."""

from __future__ import annotations

import re

from optuna_llmbo.lora.export.comments import head
from optuna_llmbo.lora.export.data import commands
from optuna_llmbo.lora.export.data import data_files
from optuna_llmbo.lora.export.data import TEMPLATE_FILE
from optuna_llmbo.lora.export.facts import Facts
from optuna_llmbo.lora.export.facts import refuse
from optuna_llmbo.lora.export.facts import refuse_decay_of_magnitude
from optuna_llmbo.lora.export.facts import refuse_tied_modules
from optuna_llmbo.lora.export.facts import whole_alpha
from optuna_llmbo.lora.export.hf_trainer import arguments
from optuna_llmbo.lora.export.hf_trainer import evaluation
from optuna_llmbo.lora.export.yaml_text import document
from optuna_llmbo.lora.export.yaml_text import Value


_TOOL = "TRL"
_COMMAND = "trl sft --config sft.yaml"


def files(facts: Facts) -> dict[str, str]:
    """The files by name.

    Raises:
        InputError: if `trl sft` cannot express the recipe: other biases, initializations or rates
            for B, whole modules that share their weight, and an alpha that is no whole number.
    """
    refuse(
        facts,
        _TOOL,
        {
            "bias": ("none",),
            "init": ("default",),
            "variant": ("lora", "rslora", "dora"),
            "lr_ratio": (1.0,),
        },
    )
    refuse_decay_of_magnitude(facts, _TOOL)
    refuse_tied_modules(facts, _TOOL)
    recipe = facts.recipe
    values: dict[str, Value] = {
        "model_name_or_path": facts.model,
        "dtype": facts.dtype,
        "dataset_name": "./data",
        "output_dir": "output",
        "max_length": facts.max_length,
        **_loss(facts),
        "packing": False,
        "use_peft": True,
        "lora_r": recipe.rank,
        "lora_alpha": whole_alpha(facts, _TOOL),
        "lora_dropout": recipe.lora_dropout,
        "lora_target_modules": _modules(facts),
        "use_rslora": recipe.variant == "rslora",
        "use_dora": recipe.variant == "dora",
        **arguments(facts),
    }
    if facts.modules_to_save:
        values["lora_modules_to_save"] = list(facts.modules_to_save)
    if facts.validation is not None:
        values |= {"dataset_test_split": "validation", **evaluation(facts)}
    return {
        "sft.yaml": document(head(facts, _TOOL, commands(facts, _COMMAND)), values),
        **data_files(facts, _TOOL, "conversation"),
    }


def _loss(facts: Facts) -> dict[str, Value]:
    """What the loss is on; data that are written out carry their labels."""
    if facts.is_written_out:
        return {"chat_template_path": TEMPLATE_FILE}
    return {"completion_only_loss": True}


def _modules(facts: Facts) -> list[str]:
    """The layers. TRL takes the only name out of its list, and peft takes such for a pattern."""
    modules = facts.target_modules
    if isinstance(modules, str):
        return [modules]
    return list(modules) if len(modules) > 1 else [rf"(?:.*\.)?{re.escape(modules[0])}"]
