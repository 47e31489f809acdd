"""What a metric is, and what several of them need."""

from __future__ import annotations

from abc import ABC
from abc import abstractmethod
from collections.abc import Sequence
import importlib
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
        """What it is called in a trial's record."""

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
    """A measure of what the model generates, which several can share."""

    @property
    def decoding(self) -> Decoding:
        """How the texts are to be generated."""

    def of_texts(self, texts: Sequence[str], examples: Sequence[Example]) -> float:
        """Measure texts that were generated so, in the order of the examples."""


class TextMetric(ABC):
    """A `TextMeasure` that generates the texts itself where nobody has done so for several."""

    decoding: Decoding

    @abstractmethod
    def check(self, model: Any, tokenizer: Any, examples: Sequence[Example]) -> None:
        """As that of a `Measure`."""

    @abstractmethod
    def of_texts(self, texts: Sequence[str], examples: Sequence[Example]) -> float:
        """Of texts that are generated already, in the order of the examples."""

    def __call__(self, model: Any, tokenizer: Any, examples: Sequence[Example]) -> float:
        """Generate and measure.

        Raises:
            InputError: as `check`.
        """
        self.check(model, tokenizer, examples)
        return self.of_texts(generate(model, tokenizer, examples, self.decoding), examples)


def share(right: Sequence[bool]) -> float:
    """Of those that are right, in [0, 1]."""
    return sum(right) / len(right)


def check_some(examples: Sequence[Example]) -> None:
    """Raises InputError if there are no examples."""
    if not examples:
        raise InputError("a metric needs at least one example, got none.")


def optional_module(name: str, package: str, needed_by: str) -> Any:
    """Import a module of an optional dependency.

    Args:
        name: the module's.
        package: what to install.
        needed_by: the metric, for the message.

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
