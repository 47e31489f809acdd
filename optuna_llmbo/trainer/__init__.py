"""Hyperparameter search with a trainer of your own: the Trainer of `transformers`, or TRL's.

Importing this package loads no torch; the names below do, on first use. TRL is imported where it
is used: `pip install optuna-llmbo[trl]`.
"""

from __future__ import annotations

import importlib
from typing import Any
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from optuna_llmbo.trainer.callback import TrialCallback as TrialCallback
    from optuna_llmbo.trainer.configs import dpo_config as dpo_config
    from optuna_llmbo.trainer.configs import lora_config as lora_config
    from optuna_llmbo.trainer.configs import sft_config as sft_config
    from optuna_llmbo.trainer.configs import training_arguments as training_arguments
    from optuna_llmbo.trainer.configuration import Configuration as Configuration
    from optuna_llmbo.trainer.job import TrainerJob as TrainerJob
    from optuna_llmbo.trainer.objective import TrainerObjective as TrainerObjective
    from optuna_llmbo.trainer.trl_objective import TRLObjective as TRLObjective


_HOMES = {
    "Configuration": "configuration",
    "TRLObjective": "trl_objective",
    "TrainerJob": "job",
    "TrainerObjective": "objective",
    "TrialCallback": "callback",
    "dpo_config": "configs",
    "lora_config": "configs",
    "sft_config": "configs",
    "training_arguments": "configs",
}

__all__ = [
    "Configuration",
    "TRLObjective",
    "TrainerJob",
    "TrainerObjective",
    "TrialCallback",
    "dpo_config",
    "lora_config",
    "sft_config",
    "training_arguments",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
