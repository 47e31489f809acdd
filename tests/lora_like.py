"""A study as the LoRA objective leaves it, without training: attributes, reports and ends."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage

from optuna_llmbo.study.trial_attributes import INFEASIBLE


DEFAULT = {"rank": 16, "alpha_ratio": 2.0, "lora_dropout": 0.05, "learning_rate": 2e-4}
BASE_LOSS = 3.9
CRASHED, DIVERGED = 4, 6
"""Numbers of the trials that end so."""
WHY_DIVERGED = "the training loss of the last 4 steps is 17.2, more than 3 times the base model's"


def make_study(
    storage: str | BaseStorage | None = None,
    *,
    n_trials: int = 15,
    name: str = "lora",
    sampler: optuna.samplers.BaseSampler | None = None,
    adapters: Path | None = None,
) -> optuna.Study:
    """Of `n_trials` trials: the default first, some pruned, one crashed, one diverged.

    Args:
        storage: default: in memory.
        n_trials: how many.
        name: of the study.
        sampler: default: random, seeded.
        adapters: folder where each complete trial leaves an adapter; default: none does.
    """
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        sampler=sampler or optuna.samplers.RandomSampler(seed=0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
    )
    study.enqueue_trial(DEFAULT)
    run_trials(study, n_trials, adapters)
    return study


def run_trials(study: optuna.Study, n_trials: int, adapters: Path | None = None) -> None:
    """More trials of the same kind."""
    study.optimize(lambda trial: _run(trial, adapters), n_trials=n_trials, catch=(RuntimeError,))


def _run(trial: optuna.Trial, adapters: Path | None) -> float:
    rank = trial.suggest_categorical("rank", [4, 8, 16, 32])
    ratio = trial.suggest_categorical("alpha_ratio", [0.5, 1.0, 2.0, 4.0])
    dropout = trial.suggest_float("lora_dropout", 0.0, 0.3)
    rate = trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)
    is_default = trial.params == DEFAULT
    record: dict[str, Any] = {"seconds": 20.0 + rank, "steps": 8, "tokens": 4000, "examples": 64}
    record |= {"fraction": 0.03, "dropped_examples": 0, "peak_memory_bytes": 10**9}
    record |= {"base_loss": BASE_LOSS, "is_default": is_default}
    for key, value in record.items():
        trial.set_user_attr(key, value)
    if trial.number == CRASHED:
        text = 'Traceback (most recent call last):\n  File "x.py"\nRuntimeError: device lost <b>'
        trial.set_user_attr("traceback", text)
        raise RuntimeError("device lost")
    if trial.number == DIVERGED:
        trial.set_user_attr(INFEASIBLE, True)
        trial.set_user_attr("pruned_reason", WHY_DIVERGED)
        raise optuna.TrialPruned(WHY_DIVERGED)
    loss = _loss(rank * ratio, rate, dropout)
    for percent in (33, 67, 100):
        trial.report(loss + (BASE_LOSS - loss) * (1 - percent / 100) ** 2, percent)
        if percent < 100 and not is_default and trial.should_prune():
            trial.set_user_attr("pruned_reason", f"by the pruner at {percent}%")
            raise optuna.TrialPruned
    trial.set_user_attr("gain_over_base", BASE_LOSS - loss)
    if adapters is not None:
        folder = adapters / f"trial-{trial.number}" / "adapter"
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
        (folder / "adapter_model.safetensors").write_bytes(b"weights")
        trial.set_user_attr("adapter", str(folder))
    return loss


def _loss(alpha: float, rate: float, dropout: float) -> float:
    """Lowest at a product of rate and alpha of 0.03."""
    return 2.8 + 0.15 * math.log10(rate * alpha / 0.03) ** 2 + 0.4 * dropout
