"""LoRA fine-tuning as an Optuna objective.

Importing this package loads no torch; the names below do, on first use.
"""

from __future__ import annotations

import importlib
from typing import Any
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from optuna_llmbo.lora.objective import LoRAObjective as LoRAObjective
    from optuna_llmbo.lora.packed.parallel import optimize_packed as optimize_packed
    from optuna_llmbo.lora.recipe import default_space as default_space
    from optuna_llmbo.lora.recipe import LoRARecipe as LoRARecipe
    from optuna_llmbo.study.training_progress import TrainingProgress as TrainingProgress


_HOMES = {
    "LoRAObjective": "optuna_llmbo.lora.objective",
    "LoRARecipe": "optuna_llmbo.lora.recipe",
    "TrainingProgress": "optuna_llmbo.study.training_progress",
    "default_space": "optuna_llmbo.lora.recipe",
    "optimize_packed": "optuna_llmbo.lora.packed.parallel",
}

__all__ = ["LoRAObjective", "LoRARecipe", "TrainingProgress", "default_space", "optimize_packed"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
