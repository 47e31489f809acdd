"""A plain Hugging Face script: LoRA with `Trainer`, all settings in one YAML file.

It knows nothing of optuna-llmbo: it stands for the script that you have. `optuna-llmbo search
--command "python hf_script.py {config}"` tunes it through its file and reads what `Trainer` prints
(docs/command-recipes.md). The file may have any field of `TrainingArguments` besides those of
`Settings`.

    python -m examples.command.data work    # a model and data
    cd work; python ../examples/command/hf_script/hf_script.py \\
        ../examples/command/hf_script/train.yaml
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import get_peft_model
from peft import LoraConfig
from transformers import AutoModelForCausalLM
from transformers import AutoTokenizer
from transformers import DataCollatorForSeq2Seq
from transformers import HfArgumentParser
from transformers import PreTrainedTokenizerBase
from transformers import Trainer
from transformers import TrainingArguments


@dataclass(frozen=True)
class Settings:
    """What is trained on what; paths are relative to the working folder."""

    model: str
    """A folder or a hub id."""
    train_file: str
    """JSON lines with `prompt` and `completion`, each a list of messages."""
    validation_file: str
    lora_r: int = 8
    lora_alpha: float = 16
    lora_dropout: float = 0.0


def read(path: str, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Read examples and tokenize them; the loss is on the completions."""

    def encode(row: dict[str, Any]) -> dict[str, list[int]]:
        prompt = tokenizer.apply_chat_template(
            row["prompt"], add_generation_prompt=True, return_dict=False
        )
        ids = tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=False)
        return {"input_ids": ids, "labels": [-100] * len(prompt) + ids[len(prompt) :]}

    rows = Dataset.from_json(path)
    return rows.map(encode, remove_columns=rows.column_names)


def main() -> None:
    """Train, evaluate, save the adapter, and print metrics as `Trainer` does."""
    parser = argparse.ArgumentParser(description="LoRA with Trainer.")
    parser.add_argument("config", type=Path, help="a YAML file")
    given = parser.parse_args()
    settings, training = HfArgumentParser((Settings, TrainingArguments)).parse_yaml_file(
        given.config
    )
    tokenizer = AutoTokenizer.from_pretrained(settings.model)
    base = AutoModelForCausalLM.from_pretrained(settings.model, dtype="float32")
    adapter = LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    trainer = Trainer(
        model=get_peft_model(base, adapter),
        args=training,
        train_dataset=read(settings.train_file, tokenizer),
        eval_dataset=read(settings.validation_file, tokenizer),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model()
    trainer.save_state()  # all digits of what was printed


if __name__ == "__main__":
    main()
