"""Training time as a metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import ClassVar

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.tokens import Example


@dataclass(frozen=True)
class TrainingSeconds:
    """Seconds from the trial's start to its last step, validation included: the trial knows."""

    name: str = "seconds"
    direction: ClassVar[str] = "minimize"

    def check(self, model: Any, tokenizer: Any, examples: Sequence[Example]) -> None:
        """Nothing to check."""

    def __call__(self, model: Any, tokenizer: Any, examples: Sequence[Example]) -> float:
        """Raises InputError: a model alone does not tell how long it was trained."""
        raise InputError(
            "the metric 'seconds' is a trial's: LoRAObjective(metric=['loss', 'seconds'])."
        )
