"""The protocol of a metric, and helpers that several metrics share."""

from __future__ import annotations

from abc import ABC
from abc import abstractmethod
from collections.abc import Sequence
import importlib
import numbers
from typing import Any
from typing import Protocol
from typing import runtime_checkable

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.generate import Decoding
from optuna_llmbo.lora.generate import generate
from optuna_llmbo.lora.tokens import Example


DIRECTIONS = ("minimize", "maximize")


class Measure(Protocol):
    """A measure of a model on examples."""

    @property
    def name(self) -> str:
        """Its name in a trial's record."""

    @property
    def direction(self) -> str:
        """ "minimize" or "maximize"."""

    def check(self, model: Any, tokenizer: Any, examples: Sequence[Example]) -> None:
        """Check what can be checked before anything is trained.

        Raises:
            InputError: if the examples are not what the metric needs.
        """

    def __call__(self, model: Any, tokenizer: Any, examples: Sequence[Example]) -> float:
        """Measure; the model is left in evaluation mode, the caller's random state as it was.

        Raises:
            InputError: as `check`.
        """


@runtime_checkable
class TextMeasure(Measure, Protocol):
    """A measure of generated text, which several metrics can share."""

    @property
    def decoding(self) -> Decoding:
        """How to generate the texts."""

    def of_texts(self, texts: Sequence[str], examples: Sequence[Example]) -> float:
        """Measure generated texts, in the order of the examples."""


class TextMetric(ABC):
    """A `TextMeasure` that generates the texts itself when called alone."""

    decoding: Decoding

    @abstractmethod
    def check(self, model: Any, tokenizer: Any, examples: Sequence[Example]) -> None:
        """As `Measure.check`."""

    @abstractmethod
    def of_texts(self, texts: Sequence[str], examples: Sequence[Example]) -> float:
        """The value for texts already generated, in the order of the examples."""

    def decided(self, text: str, example: Example) -> bool:
        """Whether the value is the same however the text goes on, so that it need not."""
        return False

    def __call__(self, model: Any, tokenizer: Any, examples: Sequence[Example]) -> float:
        """Generate and measure.

        Raises:
            InputError: as `check`.
        """
        self.check(model, tokenizer, examples)
        texts = generate(model, tokenizer, examples, self.decoding, self.decided)
        return self.of_texts(texts, examples)


def share(right: Sequence[bool]) -> float:
    """Fraction of true values, in [0, 1]."""
    return sum(right) / len(right)


def as_number(name: str, value: Any) -> float:
    """What a metric returned as a number: of Python, numpy, or a tensor or an array of one.

    Raises:
        InputError: if it is anything else, a text with digits included.
    """
    size = getattr(value, "size", 1)  # an array's number, a tensor's method
    n_values = value.numel() if callable(size) else size
    number = value.item() if n_values == 1 and hasattr(value, "item") else value
    if not isinstance(number, numbers.Real):
        raise InputError(f"the metric {name!r} returned {value!r}: expected a finite number.")
    return float(number)


def check_some(examples: Sequence[Example]) -> None:
    """Raises InputError if there are no examples."""
    if not examples:
        raise InputError("a metric needs at least one example, got none.")


def optional_module(name: str, package: str, needed_by: str) -> Any:
    """Import a module of an optional dependency.

    Args:
        name: name of the module.
        package: package to install.
        needed_by: name of the metric, for the message.

    Raises:
        InputError: if it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"the metric {needed_by!r} needs {package}, which cannot be imported ({error}): "
            "pip install 'optuna-llmbo[metrics]'."
        ) from error
