"""Answers end as soon as the rest cannot change what is measured, and the values stay."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from typing import Any

import numpy as np
import pytest
import torch

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.lora import generate as generation
from optuna_llmbo.lora.generate import Decoding
from optuna_llmbo.lora.generate import generate
from optuna_llmbo.lora.metrics import CodePassAt1
from optuna_llmbo.lora.metrics import ExactMatch
from optuna_llmbo.lora.metrics import Measure
from optuna_llmbo.lora.metrics import measure_all
from optuna_llmbo.lora.metrics import Overlap
from optuna_llmbo.lora.metrics.code_pass import answered_program
from optuna_llmbo.lora.metrics.code_pass import completed_prompt
from optuna_llmbo.lora.metrics.measure import TextMetric
from optuna_llmbo.lora.records import Pair
from optuna_llmbo.lora.tokens import Example


MANY = Decoding(max_new_tokens=64)
TEXTS = [
    "", " ", "a", "a b", "a  b\n", " a b c", "ab", "A b", "a b\u00e9", "a b\n\nc",
    "#### 12", "it is\n#### 12\nor 13", "12 ####\n13", "####\n\n 1,000 \n2", "#### none\n4",
    "### 5\n#### -6.0\n#### 7", "10-5 = 5", "#### 1,00\n0",
    "```python\nx = 1\n```", "```\nx = 1\n```\n```\nx = 2\n```", "see:\n```py\nx = 1",
    "``` x\n```",
]  # fmt: skip


def example_of(response: str) -> Example:
    return Example(Pair("p", response), np.zeros(2, dtype=np.int32), 1)


@pytest.mark.parametrize("extract", ["text", "gsm8k"])
def test_a_decided_text_has_its_value(extract: str) -> None:
    metric = ExactMatch(extract)
    n_decided = 0
    for response in TEXTS:
        if metric._reading().extract(response) is None:
            continue
        example = example_of(response)
        for text in TEXTS:
            value = metric.of_texts([text], [example])
            for end in range(len(text)):
                if metric.decided(text[:end], example):
                    n_decided += 1
                    assert metric.of_texts([text[:end]], [example]) == value, (response, text, end)
    assert n_decided > 100


def test_a_decided_program_is_whole() -> None:
    metric = CodePassAt1(lambda _: "", allow_execution=True)
    n_decided = 0
    for text in TEXTS:
        for end in range(len(text)):
            if metric.decided(text[:end], example_of("")):
                n_decided += 1
                assert answered_program(example_of(""), text[:end]) == answered_program(
                    example_of(""), text
                )
    assert n_decided > 10
    completes = CodePassAt1(lambda _: "", allow_execution=True, program=completed_prompt)
    assert not completes.decided("```\nx = 1\n```\n", example_of(""))


def test_what_says_nothing_is_never_decided() -> None:
    for metric in (ExactMatch(len), ExactMatch("text", name="x")):
        assert not metric.decided("a", example_of("a b"))
    assert not ExactMatch(len).decided("z", example_of("a"))
    assert not TextMetric.decided(ExactMatch(), "z", example_of("a"))


@contextlib.contextmanager
def counted(model: Any) -> Iterator[list[int]]:
    """The rows of every forward pass."""
    passes: list[int] = []
    hook = model.register_forward_hook(lambda *_: passes.append(1))
    yield passes
    hook.remove()


class Whole(ExactMatch):
    """Never ends an answer early."""

    def decided(self, text: str, example: Example) -> bool:
        return False


def test_answers_that_are_wrong_end_early_with_the_same_value(
    tiny: LanguageModel, examples: list[Example]
) -> None:
    prompts = examples[:6]
    own = generate(tiny.model, tiny.tokenizer, prompts, MANY)
    right = [
        Example(Pair(e.record.prompt, text), e.ids, e.n_prompt)
        for e, text in zip(prompts, own, strict=True)
    ]
    mixed = [*right[:3], *prompts[3:]]
    for chosen, most in ((prompts, 16), (mixed, 64)):
        with counted(tiny.model) as whole:
            value = Whole(decoding=MANY)(tiny.model, tiny.tokenizer, chosen)
        with counted(tiny.model) as passes:
            assert ExactMatch(decoding=MANY)(tiny.model, tiny.tokenizer, chosen) == value
        assert len(whole) == 64 and len(passes) <= most
    assert value >= 3 / 6


def test_a_text_that_others_read_goes_on(tiny: LanguageModel, examples: list[Example]) -> None:
    pytest.importorskip("rouge_score")
    metrics: list[Measure] = [ExactMatch(decoding=MANY), Overlap("rougeL", decoding=MANY)]
    with counted(tiny.model) as passes:
        both = measure_all(metrics, tiny.model, tiny.tokenizer, examples[:3])
    assert len(passes) == 64
    assert both["rougeL"] == metrics[1](tiny.model, tiny.tokenizer, examples[:3])
    with counted(tiny.model) as passes:
        measure_all(metrics[:1], tiny.model, tiny.tokenizer, examples[:3])
    assert len(passes) <= 16


def test_a_tokenizer_that_cleans_up_is_not_asked(
    tiny: LanguageModel, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny.tokenizer, "clean_up_tokenization_spaces", True)
    with counted(tiny.model) as passes:
        generate(tiny.model, tiny.tokenizer, examples[:2], MANY, lambda *_: True)
    assert len(passes) == 64


def test_the_bytes_of_a_character_decide_nothing(
    tiny: LanguageModel, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "_LOOK_EVERY", 1)
    seen: list[str] = []

    def look(text: str, _: Example) -> bool:
        seen.append(text)
        return False

    generate(tiny.model, tiny.tokenizer, examples[:4], MANY, look)
    assert seen and not any(text.endswith("\ufffd") for text in seen)


def test_the_batch_is_halved_while_memory_runs_out(
    tiny: LanguageModel, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = generate(tiny.model, tiny.tokenizer, examples[:6], Decoding(5))
    real, sizes = generation._continue, []

    def limited(model: Any, batch: Any, *about: Any) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, batch, *about)

    monkeypatch.setattr(generation, "_continue", limited)
    assert generate(tiny.model, tiny.tokenizer, examples[:6], Decoding(5, 5)) == expected
    assert sizes == [5, 3, 2, 2, 2]
