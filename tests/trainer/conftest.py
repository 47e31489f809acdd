"""Fixtures of the tests with Trainers: a tiny model that chats, rows, files of TRL's."""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
from typing import Any

import datasets
from optuna.distributions import BaseDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest
import torch

from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.trainer import TrainerJob
from optuna_llmbo.trainer import TrainerObjective
from tests.tiny import make_tiny_llm


N_ROWS = 40

SPACE: dict[str, BaseDistribution] = {
    "rank": IntDistribution(1, 8),
    "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
    "batch_size": IntDistribution(2, 6),
}


@pytest.fixture(autouse=True, scope="module")
def always_one_thread(one_thread: None) -> None:
    """In all tests of this folder."""


@pytest.fixture(scope="session")
def chat_llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model with a chat template."""
    return make_tiny_llm(tmp_path_factory.mktemp("chat") / "tiny-chat", chat=True)


def completions(n: int = N_ROWS) -> list[dict[str, str]]:
    """Counting exercises as TRL takes them, all different."""
    return [
        {"prompt": f"count on from {i}", "completion": f"{i + 1} " * (i % 4 + 1)} for i in range(n)
    ]


def preferences(n: int = N_ROWS) -> list[dict[str, str]]:
    """Pairs of a right and a wrong answer, as TRL takes them."""
    return [
        {"prompt": f"count on from {i}", "chosen": f"{i + 1}", "rejected": f"{i - 1} no"}
        for i in range(n)
    ]


@pytest.fixture(scope="session")
def rows() -> datasets.Dataset:
    return datasets.Dataset.from_list(completions())


def sft(job: TrainerJob, **more: Any) -> Any:
    """TRL's SFTTrainer on the shared model."""
    import trl

    arguments: dict[str, Any] = {"max_length": 64, "bf16": False, "gradient_checkpointing": False}
    return trl.SFTTrainer(
        job.model,
        args=job.sft_config(**arguments, use_cpu=True, **more),
        train_dataset=job.train,
        eval_dataset=job.validation,
        processing_class=job.tokenizer,
        peft_config=job.lora_config(),
    )


def tiny_model(folder: Path) -> tuple[Any, Any]:
    loaded = load_model(resolve_source(folder), device="cpu", dtype=torch.float32)
    return loaded.model, loaded.tokenizer


@pytest.fixture
def make_objective(chat_llm: Path, rows: datasets.Dataset) -> Callable[..., TrainerObjective]:
    """Makes quick objectives with TRL's SFTTrainer: 18 training and 4 validation rows."""

    def make(make_trainer: Any = sft, space: Any = SPACE, **changes: Any) -> TrainerObjective:
        settings: dict[str, Any] = {
            "train": rows,
            "proxy": 0.5,
            "model": chat_llm,
            "device": "cpu",
            "dtype": torch.float32,
            "reports": 2,
            "measure_base": False,
        }
        return TrainerObjective(make_trainer, space, **{**settings, **changes})

    return make


@pytest.fixture
def make_file(chat_llm: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of TRL's, and the data that it names."""

    def make(task: str = "sft", name: str | None = None, **changes: Any) -> Path:
        data = tmp_path / f"{task}-data"
        data.mkdir(exist_ok=True)
        made = completions() if task == "sft" else preferences()
        (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
        values: dict[str, Any] = {
            "model_name_or_path": str(chat_llm),
            "dataset_name": str(data),
            "use_peft": True,
            "lora_r": 4,
            "lora_alpha": 8,
            "learning_rate": "1e-3",  # as YAML 1.1 reads 1e-3
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "num_train_epochs": 1,
            "max_length": 64,
            "bf16": False,
            "use_cpu": True,
            "gradient_checkpointing": False,
            **changes,
        }
        path = tmp_path / (name or f"{task}.yaml")
        import yaml

        path.write_text(yaml.safe_dump({k: v for k, v in values.items() if v is not None}))
        return path

    return make
