"""Run ten trials of a stand-in for a training run."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import optunahub


# From the registry: optunahub.load_module("samplers/llmbo")
package = optunahub.load_local_module(
    "samplers/llmbo", registry_root=str(Path(__file__).resolve().parents[2])
)


def objective(trial: optuna.Trial) -> float:
    """Compute a loss with its minimum at a learning rate of 1e-3 and a batch size of 32."""
    learning_rate = trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
    batch_size = trial.suggest_int("batch_size", 4, 256, log=True)
    return math.log10(learning_rate / 1e-3) ** 2 + math.log2(batch_size / 32) ** 2 / 10


if __name__ == "__main__":
    study = optuna.create_study(sampler=package.LLMBOSampler(seed=0))
    study.optimize(objective, n_trials=10)
    print(study.best_value, study.best_params)
