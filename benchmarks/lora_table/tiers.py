"""The tiers: a model, a task, a search space, and how many runs of it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
import os
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import torch

from benchmarks.lora_table import gsm8k
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import LoRAObjective


FRACTIONS = (0.01, 0.05, 0.1, 0.3, 1.0)
"""Fractions of the training examples; each subset contains the smaller ones."""
PROXY = 0.1
"""The fraction at which most configurations are run."""

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Tier:
    """A model and a task, with the runs to make."""

    name: str
    space: Mapping[str, BaseDistribution]
    grid: Mapping[str, tuple[int | float, ...]]
    """Levels of a complete grid, run at `PROXY` with seed 0."""
    n_random: int
    """Configurations of a Sobol sequence over the space, run at `PROXY` with seed 0."""
    n_fidelity: int
    """Number of them, from the first, that are run at every fraction."""
    n_promoted: int
    """Number of configurations, the best at `PROXY`, that are run on all data."""
    n_seeded: int
    """Number, half of them promoted, that are run at `PROXY` and on all data with all seeds."""
    seeds: tuple[int, ...]
    settings: Callable[[Path | None], dict[str, Any]]
    """Arguments of `LoRAObjective`, from the folder with the data."""

    def objective(
        self, fraction: float, seed: int, *, device: str, data: Path | None = None
    ) -> LoRAObjective:
        """Make the project's own objective, on a fraction of the data.

        Args:
            fraction: fraction of the training examples.
            seed: seed of the subset, the adapter's initial weights, the order and the dropout; the
                validation examples are always the same.
            device: "cpu" or "cuda".
            data: folder with the task's data, if the tier does not include its own.
        """
        return LoRAObjective(
            space=dict(self.space),
            proxy=fraction,
            seed=seed,
            device=device,
            reports=4,
            **self.settings(data),
        )


def tier(name: str) -> Tier:
    """Look up a tier by name.

    Raises:
        InputError: if there is no such tier.
    """
    if name not in TIERS:
        raise InputError(f"tier={name!r}: expected one of {', '.join(TIERS)}.")
    return TIERS[name]


def _cpu(folder: Path | None) -> dict[str, Any]:
    folder = folder or _HERE / "cpu"
    return {
        "model": folder / "base",
        "train": folder / "train.parquet",
        "validation": folder / "validation.parquet",
        "max_length": 64,
        "micro_batch_size": 32,
        "dtype": torch.float32,
    }


def _gsm8k(folder: Path | None) -> dict[str, Any]:
    if folder is None or not (folder / "train.jsonl").is_file():
        raise InputError(
            f"the tier gsm8k needs --data FOLDER with GSM8K's train.jsonl and test.jsonl, got "
            f"{os.fspath(folder) if folder else 'none'}."
        )
    train, validation = gsm8k.split(folder / "train.jsonl")
    return {
        "model": "embedded",
        "train": train,
        "validation": validation,
        "max_length": 320,
        "micro_batch_size": 64,
        "dtype": torch.bfloat16,
        "extra_metrics": {"exact_match": gsm8k.exact_match},
    }


TIERS = {
    "cpu": Tier(
        name="cpu",
        space={
            "rank": IntDistribution(1, 64, log=True),
            "alpha_ratio": FloatDistribution(0.25, 64.0, log=True),
            "lora_dropout": FloatDistribution(0.0, 0.3),
            "batch_size": IntDistribution(2, 16, log=True),
            "learning_rate": FloatDistribution(1e-5, 3e-2, log=True),
        },
        grid={
            "rank": (1, 4, 16, 64),
            "alpha_ratio": (0.5, 2.0, 8.0, 32.0),
            "lora_dropout": (0.0, 0.1),
            "batch_size": (2, 6, 16),
            "learning_rate": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
        },
        n_random=200,
        n_fidelity=150,
        n_promoted=20,
        n_seeded=40,
        seeds=(0, 1, 2),
        settings=_cpu,
    ),
    "gsm8k": Tier(
        name="gsm8k",
        space={
            "rank": IntDistribution(1, 256, log=True),
            "alpha_ratio": FloatDistribution(0.25, 64.0, log=True),
            "lora_dropout": FloatDistribution(0.0, 0.3),
            "batch_size": IntDistribution(4, 64, log=True),
            "learning_rate": FloatDistribution(1e-5, 1e-2, log=True),
        },
        grid={},
        n_random=300,
        n_fidelity=50,
        n_promoted=10,
        n_seeded=10,
        seeds=(0, 1, 2),
        settings=_gsm8k,
    ),
}
