"""LLaMA-Factory: `train.yaml` for `llamafactory-cli train train.yaml`, and its data."""

from __future__ import annotations

import json

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.adapter import SVD_ITERATIONS
from optuna_llmbo.lora.export.comments import head
from optuna_llmbo.lora.export.data import commands
from optuna_llmbo.lora.export.data import data_files
from optuna_llmbo.lora.export.facts import Facts
from optuna_llmbo.lora.export.facts import refuse
from optuna_llmbo.lora.export.facts import refuse_decay_of_magnitude
from optuna_llmbo.lora.export.facts import refuse_tied_modules
from optuna_llmbo.lora.export.facts import whole_alpha
from optuna_llmbo.lora.export.hf_trainer import arguments
from optuna_llmbo.lora.export.hf_trainer import evaluation
from optuna_llmbo.lora.export.yaml_text import document
from optuna_llmbo.lora.export.yaml_text import Value


_TOOL = "LLaMA-Factory"
_COMMAND = "llamafactory-cli train train.yaml"
_TEMPLATE = (
    "The data carry the model's chat template already, hence the empty template here; to chat",
    "with the result, name the model's own.",
)


def files(facts: Facts) -> dict[str, str]:
    """The files by name.

    Raises:
        InputError: if LLaMA-Factory cannot express the recipe: other biases and initializations,
            OLoRA, an alpha that is no whole number, whole modules that share their weight, and
            float32, for it trains in the checkpoint's own type or in bfloat16.
    """
    refuse(
        facts,
        _TOOL,
        {
            "bias": ("none",),
            "init": ("default",),
            "variant": ("lora", "rslora", "dora", "pissa", "lora+"),
        },
    )
    refuse_decay_of_magnitude(facts, _TOOL)
    refuse_tied_modules(facts, _TOOL)
    if facts.dtype != "bfloat16":
        raise InputError(
            f"dtype={facts.dtype!r}: {_TOOL} trains in bfloat16 or in whatever type the "
            "checkpoint has. Export with --dtype bfloat16 (in Python dtype='bfloat16')."
        )
    comments = [*head(facts, _TOOL, commands(facts, _COMMAND)), *_TEMPLATE]
    names = ("train",) if facts.validation is None else ("train", "validation")
    info = {name: {"file_name": f"{name}.jsonl", **_columns(facts)} for name in names}
    return {
        "train.yaml": document(comments, _values(facts)),
        "data/dataset_info.json": json.dumps(info, indent=2) + "\n",
        **data_files(facts, _TOOL, "rendered"),
    }


def _columns(facts: Facts) -> dict[str, object]:
    if facts.is_written_out:
        return {"formatting": "sharegpt", "columns": {"messages": "conversations"}}
    return {"columns": {"prompt": "prompt", "response": "response"}}


def _values(facts: Facts) -> dict[str, Value]:
    recipe, modules = facts.recipe, facts.target_modules
    values: dict[str, Value] = {
        "model_name_or_path": facts.model,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": recipe.rank,
        "lora_alpha": whole_alpha(facts, _TOOL),
        "lora_dropout": recipe.lora_dropout,
        "lora_target": "all" if isinstance(modules, str) else ",".join(modules),
        "use_rslora": recipe.variant == "rslora",
        "use_dora": recipe.variant == "dora",
        "dataset_dir": "data",
        "dataset": "train",
        "template": "empty",
        "cutoff_len": facts.max_length,
        "output_dir": "output",
        **arguments(facts),
    }
    if facts.modules_to_save:
        values["additional_target"] = ",".join(facts.modules_to_save)
    if recipe.variant == "pissa":
        values |= {"pissa_init": True, "pissa_iter": SVD_ITERATIONS}
    if recipe.lr_ratio != 1.0:
        values["loraplus_lr_ratio"] = recipe.lr_ratio
    if facts.validation is not None:
        values |= {"eval_dataset": "validation", **evaluation(facts)}
    return values
