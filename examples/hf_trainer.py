"""A search with the Trainer of `transformers`, with LoRA: `TrialCallback` reports its evaluations.

A Llama of 0.9 million parameters learns to write the docstrings of Python functions, in seconds
per trial; model and data lie in `benchmarks/lora_table/cpu`. `--model` and `--train` replace them.

    pip install optuna-dashboard        # the rest comes with optuna-llmbo
    python examples/hf_trainer.py --trials 10
    optuna-dashboard sqlite:///hf_trainer.db

The objective is a function of your own, with a Trainer of your own. `TrainerObjective` adds a
shared base model, splits and a proxy (docs/trainer.md).
"""

from __future__ import annotations

import argparse
from pathlib import Path
import tempfile
from typing import Any

from datasets import Dataset
import optuna
import pandas as pd
from peft import get_peft_model
from peft import LoraConfig
from peft import PeftModel
from transformers import AutoModelForCausalLM
from transformers import AutoTokenizer
from transformers import DataCollatorForSeq2Seq
from transformers import PreTrainedTokenizerBase
from transformers import PrinterCallback
from transformers import Trainer
from transformers import TrainingArguments

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.trainer import TrialCallback


HERE = Path(__file__).parent.parent / "benchmarks" / "lora_table" / "cpu"
STUDY = "hf_trainer"


def training_space(trial: optuna.trial.BaseTrial) -> dict[str, Any]:
    """Suggest fields of `TrainingArguments`."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 3e-2, log=True),
        "warmup_steps": trial.suggest_int("warmup_steps", 0, 10),
    }


def with_adapter(model: str, trial: optuna.trial.BaseTrial) -> PeftModel:
    """The base model with an adapter of the trial's."""
    adapter = LoraConfig(
        r=trial.suggest_int("lora_r", 1, 64, log=True),
        lora_alpha=trial.suggest_float("lora_alpha", 1.0, 512.0, log=True),
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    base = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    return get_peft_model(base, adapter)


def read(path: Path, tokenizer: PreTrainedTokenizerBase, limit: int) -> Dataset:
    """The first pairs of a Parquet file with columns prompt and response; no loss on prompts."""

    def encode(row: dict[str, str]) -> dict[str, list[int]]:
        prompt = tokenizer(row["prompt"] + "\n", add_special_tokens=False).input_ids
        response = tokenizer(row["response"] + tokenizer.eos_token, add_special_tokens=False)
        return {
            "input_ids": prompt + response.input_ids,
            "labels": [-100] * len(prompt) + response.input_ids,
        }

    pairs = Dataset.from_pandas(pd.read_parquet(path).head(limit))
    return pairs.map(encode, remove_columns=pairs.column_names)


def main() -> None:
    """Run the search and print what it found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=str(HERE / "base"), help="a folder or a hub id")
    parser.add_argument("--train", type=Path, default=HERE / "train.parquet")
    parser.add_argument("--validation", type=Path, default=HERE / "validation.parquet")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--steps", type=int, default=40, help="of training, a trial")
    parser.add_argument("--rows", type=int, default=64, help="of validation data")
    parser.add_argument("--storage", default="sqlite:///hf_trainer.db")
    parser.add_argument("--llm", default="auto", help="as LLMBOSampler(llm=...)")
    arguments = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    train = read(arguments.train, tokenizer, 8 * arguments.steps)
    validation = read(arguments.validation, tokenizer, arguments.rows)

    def objective(trial: optuna.Trial) -> float:
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                model=with_adapter(arguments.model, trial),
                args=TrainingArguments(
                    output_dir=folder,
                    max_steps=arguments.steps,
                    per_device_train_batch_size=8,
                    per_device_eval_batch_size=32,
                    save_strategy="no",
                    report_to="none",
                    disable_tqdm=True,
                    seed=0,
                    **training_space(trial),
                ),
                train_dataset=train,
                eval_dataset=validation,
                data_collator=DataCollatorForSeq2Seq(tokenizer),
            )
            trainer.remove_callback(PrinterCallback)
            callback = TrialCallback(trial, reports=4)  # evaluates at 25, 50, 75 and 100 percent
            trainer.add_callback(callback)
            with callback:  # where memory runs out, the trial is pruned
                trainer.train()
            return callback.value

    study = optuna.create_study(
        sampler=LLMBOSampler(
            llm=arguments.llm,
            task="LoRA teaches a small language model to write docstrings; minimize the loss.",
            seed=0,
        ),
        pruner=optuna.pruners.MedianPruner(),
        storage=arguments.storage,
        study_name=STUDY,
        load_if_exists=True,
    )
    study.optimize(objective, n_trials=arguments.trials)
    print(f"first trial {study.trials[0].value:.4f}, best {study.best_value:.4f} nats")
    print(study.best_params)


if __name__ == "__main__":
    main()
