"""What the tests of metrics share: a model that answers as it is told."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import pytest

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.lora import tokens
from optuna_llmbo.lora.records import Pair
from optuna_llmbo.lora.tokens import Example


Tell = Callable[[Sequence[tuple[str, str]]], list[Example]]


@pytest.fixture
def tell(tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> Tell:
    """From (response, answer) pairs: examples whose prompts the tiny model answers so, token by
    token, through all of `generate`."""

    def tell(pairs: Sequence[tuple[str, str]]) -> list[Example]:
        prompts = [f"{i}?" + "." * (i % 3) for i in range(len(pairs))]
        tokenizer = tiny.tokenizer
        answers = {}
        for prompt, (_, answer) in zip(prompts, pairs, strict=True):
            ids = tokenizer(answer, add_special_tokens=False).input_ids
            answers[prompt] = [*ids, tokenizer.eos_token_id]
        whole = tiny.model.generate

        def generate(input_ids: Any, attention_mask: Any, **settings: Any) -> Any:
            out = whole(input_ids=input_ids, attention_mask=attention_mask, **settings)
            wide = out.new_full(
                (len(out), input_ids.shape[1] + max(map(len, answers.values()))),
                tokenizer.eos_token_id,
            )
            wide[:, : input_ids.shape[1]] = input_ids
            for row, ids, mask in zip(wide, input_ids, attention_mask, strict=True):
                answer = answers[tokenizer.decode(ids[mask.bool()]).rstrip("\n")]
                start = input_ids.shape[1]
                row[start : start + len(answer)] = out.new_tensor(answer)
            return wide

        monkeypatch.setattr(tiny.model, "generate", generate)
        told = [Pair(p, response) for p, (response, _) in zip(prompts, pairs, strict=True)]
        return tokens.encode(told, tokenizer, 512)

    return tell
