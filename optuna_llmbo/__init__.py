"""Language-guided Bayesian optimization for Optuna, made for LoRA.

`LLMBOSampler` is a sampler for any Optuna study; `LoRAObjective` and `CommandObjective` are
objectives for any sampler.
Importing the package loads neither torch nor transformers; the names below do, on first use.
"""

from __future__ import annotations

import importlib
from typing import Any
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from optuna_llmbo.command.objective import CommandObjective as CommandObjective
    from optuna_llmbo.lora.objective import LoRAObjective as LoRAObjective
    from optuna_llmbo.sampler import LLMBOSampler as LLMBOSampler


__version__ = "0.1.0"

_HOMES = {
    "CommandObjective": "optuna_llmbo.command.objective",
    "LLMBOSampler": "optuna_llmbo.sampler",
    "LoRAObjective": "optuna_llmbo.lora.objective",
}

__all__ = ["CommandObjective", "LLMBOSampler", "LoRAObjective", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
