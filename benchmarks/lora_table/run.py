"""Make one run of the table: train a configuration with the project's own objective."""

from __future__ import annotations

from collections.abc import Mapping
import functools
import json
import math
from pathlib import Path
import platform
import time
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import torch

from benchmarks.lora_table import tables
from benchmarks.lora_table.plan import Planned
from benchmarks.lora_table.tiers import tier
from benchmarks.provenance import versions
from optuna_llmbo.lora import LoRAObjective


VERSIONS = ("optuna-llmbo", "torch", "transformers", "peft")

PROCEDURE = 1
"""Increase it when a change of the training code changes the results of runs."""


@functools.cache
def objective(
    tier_name: str, fraction: float, seed: int, device: str, data: Path | None
) -> LoRAObjective:
    """Return the process's objective for a fraction and seed; model and data are read once."""
    return tier(tier_name).objective(fraction, seed, device=device, data=data)


@functools.cache
def context(
    tier_name: str, fraction: float, seed: int, device: str, data: Path | None
) -> Mapping[str, Any]:
    """Return what determines a run besides its hyperparameters: model, data, settings, code."""
    made = objective(tier_name, fraction, seed, device, data)
    return {
        **made.fingerprint,
        "micro_batch_size": made.options.micro_batch_size,
        "procedure": PROCEDURE,
    }


def run(
    tier_name: str, planned: Planned, device: str, data: Path | None, commit: str
) -> dict[str, Any]:
    """Train and evaluate, and return the table's row."""
    where = (tier_name, planned.fraction, planned.seed, device, data)
    made = objective(*where)
    study = optuna.create_study(pruner=optuna.pruners.NopPruner())
    study.enqueue_trial(planned.params)
    study.optimize(made, n_trials=1)
    (trial,) = study.trials
    if trial.params != planned.params:
        raise RuntimeError(f"planned {planned.params}, trained {trial.params}")
    surroundings = context(*where)
    metrics = trial.user_attrs.get("metrics", {})
    return {
        "run_id": tables.run_id(planned.params, surroundings),
        "design": planned.design,
        **planned.params,
        "fraction": planned.fraction,
        "seed": planned.seed,
        "status": _status(trial),
        "loss": trial.value if trial.state == TrialState.COMPLETE else math.nan,
        "curve": list(trial.intermediate_values.values()),
        "exact_match": metrics.get("exact_match", math.nan),
        **{
            name: trial.user_attrs[name]
            for name in ("base_loss", "seconds", "steps", "tokens", "examples")
        },
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "versions": json.dumps({**versions(VERSIONS), "python": platform.python_version()}),
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
        "context": json.dumps(surroundings, sort_keys=True),
    }


def _status(trial: FrozenTrial) -> str:
    if trial.state == TrialState.COMPLETE:
        return tables.COMPLETE
    reason = trial.user_attrs["pruned_reason"]
    return tables.OUT_OF_MEMORY if "memory" in reason else tables.DIVERGED


def _processor() -> str:
    return f"CPU {platform.machine()}, {torch.get_num_threads()} thread"
