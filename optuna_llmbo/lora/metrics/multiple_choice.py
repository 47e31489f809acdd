"""Accuracy of choosing among given answers by their likelihood."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
import sys
from typing import Any
from typing import ClassVar

import numpy as np
import torch

from optuna_llmbo.errors import check_at_least
from optuna_llmbo.errors import check_choice
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.evaluate import device_of
from optuna_llmbo.lora.evaluate import response_log_likelihoods
from optuna_llmbo.lora.metrics.measure import check_some
from optuna_llmbo.lora.metrics.measure import share
from optuna_llmbo.lora.records import with_response
from optuna_llmbo.lora.tokens import collate
from optuna_llmbo.lora.tokens import encode
from optuna_llmbo.lora.tokens import Example
from optuna_llmbo.lora.tokens import in_batches


@dataclass(frozen=True)
class MultipleChoice:
    """Share of the examples whose response is the likeliest of its choices, in [0, 1].

    Each choice is read after the prompt, with the end that a response is trained with, so that "1"
    differs from the start of "10". Among equally likely ones the first is chosen.

    Raises:
        InputError: if an argument is invalid.
    """

    choices: Sequence[str] | Callable[[Example], Sequence[str]]
    """At least two different texts, the response among them; or a function of the example."""
    score: str = "mean"
    """Log likelihood per token ("mean"), so that length does not count, or in all ("sum")."""
    batch_size: int = 16
    """Choices read at once; does not change the result."""
    name: str = "multiple_choice"
    direction: ClassVar[str] = "maximize"

    def __post_init__(self) -> None:
        check_choice("score", self.score, ("mean", "sum"))
        check_at_least("batch_size", self.batch_size, 1)
        if isinstance(self.choices, str):
            raise InputError(f"choices={self.choices!r}: expected a list of texts, got one text.")

    def check(self, model: Any, tokenizer: Any, examples: Sequence[Example]) -> None:
        """Check the choices of all examples.

        Raises:
            InputError: if there are fewer than two, the response is not among them, two are the
                same, or one is too long for the model.
        """
        check_some(examples)
        positions = getattr(model.config, "max_position_embeddings", None) or sys.maxsize
        for example in examples:
            for choice in _as_examples(example, self._choices_of(example), tokenizer):
                if len(choice) > positions:
                    raise InputError(
                        f"a prompt with the choice {choice.record.response[:40]!r} has "
                        f"{len(choice)} tokens, more than the {positions} that the model reads."
                    )

    def __call__(self, model: Any, tokenizer: Any, examples: Sequence[Example]) -> float:
        """Read all choices of all examples.

        Raises:
            InputError: as `check`.
        """
        self.check(model, tokenizer, examples)
        model.eval()
        choices = [self._choices_of(example) for example in examples]
        read = [
            choice
            for example, texts in zip(examples, choices, strict=True)
            for choice in _as_examples(example, texts, tokenizer)
        ]
        scores = iter(self._scores(model, read))
        right = []
        for example, texts in zip(examples, choices, strict=True):
            best = max(texts, key=lambda _: next(scores))
            right.append(best == example.record.response.strip())
        return share(right)

    def _scores(self, model: Any, read: Sequence[Example]) -> list[float]:
        """Log likelihood of each choice after its prompt, in nats (per token)."""
        scores = np.zeros(len(read))
        for places in in_batches([len(choice) for choice in read], self.batch_size):
            batch = collate([read[i] for i in places], device_of(model))
            with torch.no_grad():
                scores[places] = response_log_likelihoods(model, batch).double().cpu().numpy()
        if self.score == "mean":
            scores /= [choice.n_response for choice in read]
        return list(map(float, scores))

    def _choices_of(self, example: Example) -> list[str]:
        given = self.choices(example) if callable(self.choices) else self.choices
        texts = [text.strip() for text in given]
        about = f"the choices of the prompt {example.record.prompt[:60]!r} are {texts!r}"
        if len(texts) < 2 or len(set(texts)) < len(texts):
            raise InputError(f"{about}: expected at least two, all different.")
        if example.record.response.strip() not in texts:
            raise InputError(f"{about}, without the response {example.record.response!r}.")
        return texts


def _as_examples(example: Example, choices: Sequence[str], tokenizer: Any) -> list[Example]:
    """The example's prompt with each choice as the response."""
    records = [with_response(example.record, choice) for choice in choices]
    return encode(records, tokenizer, sys.maxsize)
