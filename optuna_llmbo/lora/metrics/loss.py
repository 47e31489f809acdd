"""The validation loss as a metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import ClassVar

from optuna_llmbo.lora.evaluate import validation_loss
from optuna_llmbo.lora.metrics.measure import check_some
from optuna_llmbo.lora.tokens import Example


@dataclass(frozen=True)
class Loss:
    """Mean negative log likelihood of the response tokens, nats per token; see `evaluate`."""

    batch_size: int = 8
    name: str = "loss"
    direction: ClassVar[str] = "minimize"

    def check(self, model: Any, tokenizer: Any, examples: Sequence[Example]) -> None:
        """Raises InputError if there are no examples."""
        check_some(examples)

    def __call__(self, model: Any, tokenizer: Any, examples: Sequence[Example]) -> float:
        """The loss; not finite if the model's outputs are not."""
        check_some(examples)
        return validation_loss(model, examples, batch_size=self.batch_size)
