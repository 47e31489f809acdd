"""Size of the adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import ClassVar

from optuna_llmbo.lora.tokens import Example


@dataclass(frozen=True)
class AdapterSize:
    """Number of trainable parameters; 0 for a frozen model without an adapter."""

    name: str = "adapter_size"
    direction: ClassVar[str] = "minimize"

    def check(self, model: Any, tokenizer: Any, examples: Sequence[Example]) -> None:
        """Nothing to check."""

    def __call__(self, model: Any, tokenizer: Any, examples: Sequence[Example]) -> float:
        """Count the parameters; shared ones count once."""
        return float(sum(p.numel() for p in model.parameters() if p.requires_grad))
