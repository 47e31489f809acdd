"""Unsloth: `train.py`, a script that trains, and the one that makes its data."""

from __future__ import annotations

from collections.abc import Mapping

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.export.comments import head
from optuna_llmbo.lora.export.data import commands
from optuna_llmbo.lora.export.data import data_files
from optuna_llmbo.lora.export.facts import adapter_arguments
from optuna_llmbo.lora.export.facts import Facts
from optuna_llmbo.lora.export.facts import refuse
from optuna_llmbo.lora.export.facts import refuse_decay_of_magnitude
from optuna_llmbo.lora.export.facts import refuse_tied_modules
from optuna_llmbo.lora.export.hf_trainer import arguments
from optuna_llmbo.lora.export.hf_trainer import evaluation


_TOOL = "Unsloth"
_COMMAND = "python train.py"
_WHOLE = ("embed_tokens", "lm_head")

_SCRIPT = """\
{comments}

# isort: skip_file
from unsloth import FastLanguageModel  # first, for it changes what is imported after it
import datasets
import torch
from trl import SFTConfig
from trl import SFTTrainer

model, tokenizer = FastLanguageModel.from_pretrained(
{load})
model = FastLanguageModel.get_peft_model(
    model,
{adapter})
data = datasets.load_dataset(
    "json",
    data_files={data_files!r},
)
trainer = SFTTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=data["train"],
    eval_dataset={eval_dataset},
    args=SFTConfig(
{training}    ),
)
trainer.train()
model.save_pretrained("output")
tokenizer.save_pretrained("output")
"""


def files(facts: Facts) -> dict[str, str]:
    """The files by name.

    Raises:
        InputError: if Unsloth cannot express the recipe: two learning rates, adapters of the
            embeddings, and whole modules other than these.
    """
    refuse(facts, _TOOL, {"lr_ratio": (1.0,)})
    refuse_decay_of_magnitude(facts, _TOOL)
    refuse_tied_modules(facts, _TOOL)
    _refuse_other_modules(facts)
    names = ("train",) if facts.validation is None else ("train", "validation")
    comments = [f"# {line}".rstrip() for line in head(facts, _TOOL, commands(facts, _COMMAND))]
    script = _SCRIPT.format(
        comments="\n".join(comments),
        load=_lines(_load(facts), 4),
        adapter=_lines(_adapter(facts), 4),
        data_files={name: f"data/{name}.jsonl" for name in names},
        eval_dataset="None" if facts.validation is None else 'data["validation"]',
        training=_lines(_training(facts), 8),
    )
    return {"train.py": script, **data_files(facts, _TOOL, "conversation")}


def _refuse_other_modules(facts: Facts) -> None:
    """Unsloth trains whole copies of these two, and takes them for such among the layers too."""
    others = [name for name in facts.modules_to_save if _leaf(name) not in _WHOLE]
    if others:
        raise InputError(
            f"modules_to_save={','.join(others)!r}: {_TOOL} trains whole copies of "
            f"{' and '.join(_WHOLE)} only. Export to another tool, or choose a trial without it."
        )
    whole = [name for name in facts.target_modules if _leaf(name) in _WHOLE]
    if whole and not isinstance(facts.target_modules, str):
        raise InputError(
            f"target_modules={','.join(whole)!r}: {_TOOL} would train whole copies instead of "
            "adapters. Export to another tool, or choose a trial without it."
        )


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _load(facts: Facts) -> dict[str, str]:
    return {
        "model_name": repr(facts.model),
        "max_seq_length": repr(facts.max_length),
        "dtype": f"torch.{facts.dtype}",
        "load_in_4bit": "False",
        "random_state": repr(facts.seed),
    }


def _adapter(facts: Facts) -> dict[str, str]:
    values = {**adapter_arguments(facts), "random_state": facts.seed}
    if facts.modules_to_save:
        values["modules_to_save"] = [_leaf(name) for name in facts.modules_to_save]
    return {name: repr(value) for name, value in values.items()}


def _training(facts: Facts) -> dict[str, str]:
    values: dict[str, object] = {
        "output_dir": "output",
        "max_length": facts.max_length,
        **({} if facts.is_written_out else {"completion_only_loss": True}),
        "packing": False,
        **arguments(facts),
        **evaluation(facts),
    }
    return {name: repr(value) for name, value in values.items()}


def _lines(arguments: Mapping[str, str], indent: int) -> str:
    return "".join(f"{' ' * indent}{name}={value},\n" for name, value in arguments.items())
