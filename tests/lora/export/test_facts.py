from __future__ import annotations

from typing import Any

import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.export import round_alpha
from tests.lora.export.samples import facts
from tests.lora.export.samples import RECIPE


@pytest.mark.parametrize(
    ("batch", "most", "micro", "accumulation"),
    [(12, 8, 6, 2), (16, 8, 8, 2), (13, 8, 1, 13), (4, 8, 4, 1), (7, 7, 7, 1), (9, 1, 1, 9)],
)
def test_micro_batches_make_the_batch_exactly(
    batch: int, most: int, micro: int, accumulation: int
) -> None:
    made = facts(batch_size=batch, micro_batch_size=most)
    assert (made.per_device_batch_size, made.accumulation_steps) == (micro, accumulation)
    assert made.per_device_batch_size * made.accumulation_steps == batch


def test_steps_and_warmup() -> None:
    made = facts(batch_size=12, n_examples=1000, epochs=2, warmup_ratio=0.1)
    assert made.steps == 2 * 84  # 83 batches and one of 4
    assert made.warmup_steps == 17
    assert facts(warmup_ratio=0.0).warmup_steps == 0
    # a trial starts at its peak where the warm-up has one step
    assert facts(warmup_ratio=0.001).warmup_steps == 0


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "gguf": ({"model": "a.gguf"}, "not quantized"),
    "no model": ({"model": ""}, "model=''"),
    "a part": ({"target_modules": "attention"}, "a tuple of layers' names"),
    "no layers": ({"target_modules": ()}, "a tuple of layers' names"),
    "dtype": ({"dtype": "float16"}, "bfloat16, float32"),
    "no examples": ({"n_examples": 0}, "n_examples=0"),
    "micro-batch": ({"micro_batch_size": 2.5}, "micro_batch_size=2.5"),
    "line break": ({"train": "a\nimport os"}, "line breaks"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD.keys())
def test_bad_facts(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        facts(**changes)


def test_rounded_alpha_says_what_it_was() -> None:
    recipe, line = round_alpha(facts(lora_alpha=20.4).recipe)
    assert recipe.lora_alpha == 20.0
    assert line == "lora_alpha was 20.4 and has been rounded (-1.96%)."
    assert round_alpha(facts(lora_alpha=0.3).recipe)[0].lora_alpha == 1.0
    assert recipe == facts(lora_alpha=20.0).recipe != RECIPE
