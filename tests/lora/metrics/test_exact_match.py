from __future__ import annotations

import sys

import pytest

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.generate import Decoding
from optuna_llmbo.lora.generate import generate
from optuna_llmbo.lora.metrics import ExactMatch
from optuna_llmbo.lora.records import Pair
from optuna_llmbo.lora.tokens import Example
from tests.lora.metrics.conftest import Tell


FEW = Decoding(max_new_tokens=4, batch_size=3)
GSM8K = [
    ("6 and 6.\n#### 12", "it is\n#### 12.0"),
    ("#### 1,000", "so $1000"),
    ("#### 3", "#### 4 and 3"),
    ("#### 5", "I do not know"),
]


def test_gsm8k(tiny: LanguageModel, tell: Tell) -> None:
    examples = tell(GSM8K)
    assert ExactMatch("gsm8k", FEW)(tiny.model, tiny.tokenizer, examples) == 2 / 4


def test_text(tiny: LanguageModel, tell: Tell) -> None:
    examples = tell([("a b", " a  b\n"), ("a", "A"), ("a", "a."), ("a", "")])
    assert ExactMatch(decoding=FEW)(tiny.model, tiny.tokenizer, examples) == 1 / 4


def test_math(tiny: LanguageModel, tell: Tell) -> None:
    pytest.importorskip("math_verify")
    examples = tell([("thus \\boxed{\\frac{3}{4}}", "$0.75$"), ("\\boxed{2}", "3"), ("$1$", "?")])
    assert ExactMatch("math", FEW)(tiny.model, tiny.tokenizer, examples) == 1 / 3


def test_a_function(tiny: LanguageModel, tell: Tell) -> None:
    examples = tell([("Yes.", "yes!"), ("no", "yes"), ("yes", "")])
    metric = ExactMatch(lambda text: text[:1].lower() or None, FEW)
    assert metric(tiny.model, tiny.tokenizer, examples) == 1 / 3


def test_what_the_model_really_generates(tiny: LanguageModel, examples: list[Example]) -> None:
    texts = generate(tiny.model, tiny.tokenizer, examples, FEW)
    right = [f"{texts[i]} " if i % 3 == 0 else "other" for i in range(len(examples))]
    told = [
        Example(Pair(e.record.prompt, response), e.ids, e.n_prompt)
        for e, response in zip(examples, right, strict=True)
    ]
    assert all(text.strip() not in ("", "other") for text in texts)
    assert ExactMatch(decoding=FEW)(tiny.model, tiny.tokenizer, told) == 8 / 24


def test_responses_without_an_answer(tiny: LanguageModel, tell: Tell) -> None:
    examples = tell([("#### 1", "1"), ("none at all", "1")])
    for call in (ExactMatch("gsm8k").check, ExactMatch("gsm8k")):
        with pytest.raises(InputError, match="1 of 2 responses have no answer .*'none at all'"):
            call(tiny.model, tiny.tokenizer, examples)


def test_checks(tiny: LanguageModel, examples: list[Example]) -> None:
    ExactMatch().check(tiny.model, tiny.tokenizer, examples)
    with pytest.raises(InputError, match="together more than"):
        ExactMatch(decoding=Decoding(5000)).check(tiny.model, tiny.tokenizer, examples)
    with pytest.raises(InputError, match="at least one example"):
        ExactMatch().check(tiny.model, tiny.tokenizer, [])
    with pytest.raises(InputError, match="extract must be one of text, gsm8k, math; got 'maths'"):
        ExactMatch("maths")


def test_math_verify_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(InputError, match=r"'math' needs math-verify.*optuna-llmbo\[metrics\]"):
        ExactMatch("math")
    ExactMatch("gsm8k")
