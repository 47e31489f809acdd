"""A user's function as a metric."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import Any

from optuna_llmbo.errors import check_choice
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.metrics.measure import as_number
from optuna_llmbo.lora.metrics.measure import DIRECTIONS
from optuna_llmbo.lora.tokens import Example


@dataclass(frozen=True)
class Custom:
    """A function of the model, its tokenizer and the examples, with a name and a direction.

    Raises:
        InputError: if it is not a function, or the direction is invalid.
    """

    name: str
    direction: str
    function: Callable[[Any, Any, Sequence[Example]], float]

    def __post_init__(self) -> None:
        check_choice("direction", self.direction, DIRECTIONS)
        if not callable(self.function):
            raise InputError(
                f"function={self.function!r}: expected a function of the model, its tokenizer and "
                "the examples."
            )

    def check(self, model: Any, tokenizer: Any, examples: Sequence[Example]) -> None:
        """Nothing to check: what the function needs is unknown."""

    def __call__(self, model: Any, tokenizer: Any, examples: Sequence[Example]) -> float:
        """Call the function.

        Raises:
            InputError: if it does not return a finite number.
        """
        value = as_number(self.name, self.function(model, tokenizer, examples))
        if not math.isfinite(value):
            raise InputError(
                f"the metric {self.name!r} returned {value!r}: expected a finite number."
            )
        return value
