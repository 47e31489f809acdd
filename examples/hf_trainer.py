"""The sampler under Hugging Face's `Trainer.hyperparameter_search`, with LoRA.

A Llama of 0.9 million parameters learns to write the docstrings of Python functions, in seconds
per trial; model and data lie in `benchmarks/lora_table/cpu`. `--model` and `--train` replace them.

    pip install optuna-dashboard        # the rest comes with optuna-llmbo
    python examples/hf_trainer.py --trials 10
    optuna-dashboard sqlite:///hf_trainer.db

Three things to know about `hyperparameter_search`: it sets only fields of `TrainingArguments`, so
rank and alpha are suggested in `model_init(trial)`; it returns no study, so name a storage to see
one; and it reports to the pruner at each evaluation.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
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
from transformers import Trainer
from transformers import TrainingArguments

from optuna_llmbo import LLMBOSampler


HERE = Path(__file__).parent.parent / "benchmarks" / "lora_table" / "cpu"
STUDY = "hf_trainer"


def training_space(trial: optuna.Trial) -> dict[str, Any]:
    """Suggest fields of `TrainingArguments`, for the Trainer to set."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 3e-2, log=True),
        "warmup_steps": trial.suggest_int("warmup_steps", 0, 10),
    }


def with_adapter(model: str) -> Callable[[optuna.Trial | None], PeftModel]:
    """Make the function that the Trainer calls for a model: first without, then for each trial."""

    def model_init(trial: optuna.Trial | None) -> PeftModel:
        rank, alpha = 8, 16.0
        if trial is not None:
            rank = trial.suggest_int("lora_r", 1, 64, log=True)
            alpha = trial.suggest_float("lora_alpha", 1.0, 512.0, log=True)
        adapter = LoraConfig(
            r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        base = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
        return get_peft_model(base, adapter)

    return model_init


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
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model_init=with_adapter(arguments.model),
            args=TrainingArguments(
                output_dir=folder,
                max_steps=arguments.steps,
                per_device_train_batch_size=8,
                per_device_eval_batch_size=32,
                eval_strategy="steps",
                eval_steps=max(1, arguments.steps // 4),
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                seed=0,
            ),
            train_dataset=read(arguments.train, tokenizer, 8 * arguments.steps),
            eval_dataset=read(arguments.validation, tokenizer, arguments.rows),
            data_collator=DataCollatorForSeq2Seq(tokenizer),
        )
        best = trainer.hyperparameter_search(
            hp_space=training_space,
            n_trials=arguments.trials,
            direction="minimize",
            backend="optuna",
            # from here on as for optuna.create_study
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

    study = optuna.load_study(study_name=STUDY, storage=arguments.storage)
    print(f"first trial {study.trials[0].value:.4f}, best {best.objective:.4f} nats")
    print(best.hyperparameters)


if __name__ == "__main__":
    main()
