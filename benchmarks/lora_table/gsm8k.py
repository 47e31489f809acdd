"""GSM8K for the GPU tier: a fixed validation split, and exact match of the final answer.

Cobbe et al. 2021, Training Verifiers to Solve Math Word Problems, arXiv:2110.14168. The official
test problems are not touched.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
from pathlib import Path
import re
from typing import Any

import datasets

from optuna_llmbo.lora import data
from optuna_llmbo.lora.generate import Decoding
from optuna_llmbo.lora.generate import generate
from optuna_llmbo.lora.tokens import Example


N_VALIDATION = 256
MAX_NEW_TOKENS = 200

_SPLIT_SEED = 0
_ANSWER = re.compile(r"####\s*(-?[\d,]*\.?\d+)")


@functools.cache
def split(path: Path) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Split the training file into training and validation problems, always the same."""
    pairs = data.load_records(path)
    keys = [pair.key for pair in pairs]
    parts = data.split(pairs, keys, N_VALIDATION, _SPLIT_SEED)
    rows = [[{"prompt": p.prompt, "response": p.response} for p in part] for part in parts]
    train, validation = (datasets.Dataset.from_list(part) for part in rows)
    return train, validation


def final_answer(text: str) -> str | None:
    """Find the number after the first "####", without thousands separators; None without one."""
    match = _ANSWER.search(text)
    return match.group(1).replace(",", "") if match else None


def exact_match(
    model: Any, tokenizer: Any, examples: Sequence[Example], batch_size: int = 64
) -> float:
    """Compute the share of problems with the right final number, decoding greedily, in [0, 1]."""
    right = 0
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        texts = _generate(model, tokenizer, batch)
        expected = [final_answer(example.record.response) for example in batch]
        right += sum(final_answer(t) == e for t, e in zip(texts, expected, strict=True))
    return right / len(examples)


def _generate(model: Any, tokenizer: Any, examples: Sequence[Example]) -> list[str]:
    return generate(model, tokenizer, examples, Decoding(MAX_NEW_TOKENS, len(examples)))
