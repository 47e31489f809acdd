"""Fraction of generated answers that match the expected ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import ClassVar

from optuna_llmbo.errors import check_choice
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.generate import check_decoding
from optuna_llmbo.lora.generate import Decoding
from optuna_llmbo.lora.metrics.answers import Extract
from optuna_llmbo.lora.metrics.answers import Reading
from optuna_llmbo.lora.metrics.answers import READINGS
from optuna_llmbo.lora.metrics.measure import check_some
from optuna_llmbo.lora.metrics.measure import share
from optuna_llmbo.lora.metrics.measure import TextMetric
from optuna_llmbo.lora.tokens import Example


@dataclass(frozen=True)
class ExactMatch(TextMetric):
    """Fraction of generated answers that equal the response's, in [0, 1]; a missing one is wrong.

    Raises:
        InputError: if `extract` is unknown, or "math" without math-verify.
    """

    extract: str | Extract = "text"
    """What to compare: "text", the whole text up to whitespace; "gsm8k", its number; "math", its
    expression, through math-verify; or a function from a text to a comparable value, None for no
    answer. Applied to the response and to the generated text."""
    decoding: Decoding = field(default_factory=Decoding)
    name: str = "exact_match"
    direction: ClassVar[str] = "maximize"

    def __post_init__(self) -> None:
        self._reading()

    def check(self, model: Any, tokenizer: Any, examples: Sequence[Example]) -> None:
        """Check that responses have answers and prompts fit.

        Raises:
            InputError: if not.
        """
        self._expected(self._reading(), examples)
        check_decoding(model, examples, self.decoding)

    def of_texts(self, texts: Sequence[str], examples: Sequence[Example]) -> float:
        """The value for texts already generated."""
        reading = self._reading()
        expected = self._expected(reading, examples)
        found = [reading.extract(text) for text in texts]
        return share(
            [f is not None and reading.same(e, f) for e, f in zip(expected, found, strict=True)]
        )

    def decided(self, text: str, example: Example) -> bool:
        """Whether the answer is right or wrong however the text goes on."""
        return self._reading().decided(text, example.record.response)

    def _reading(self) -> Reading:
        if callable(self.extract):
            return Reading(self.extract)
        check_choice("extract", self.extract, tuple(READINGS))
        return READINGS[self.extract]()

    def _expected(self, reading: Reading, examples: Sequence[Example]) -> list[Any]:
        check_some(examples)
        expected = [reading.extract(example.record.response) for example in examples]
        lacking = [e for e, answer in zip(examples, expected, strict=True) if answer is None]
        if lacking:
            response = lacking[0].record.response
            raise InputError(
                f"{len(lacking)} of {len(examples)} responses have no answer to compare "
                f"with (extract={self.extract!r}), such as {response[-80:]!r}: choose another "
                "extract, or leave these examples out."
            )
        return expected
