from __future__ import annotations

import os
from typing import Any

import pytest

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.generate import Decoding
from optuna_llmbo.lora.metrics import CodePassAt1
from optuna_llmbo.lora.metrics.code_pass import answered_program
from optuna_llmbo.lora.metrics.code_pass import completed_prompt
from optuna_llmbo.lora.metrics.sandbox import Limits
from optuna_llmbo.lora.tokens import Example
from tests.lora.metrics.conftest import Tell


pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX processes only")

TESTS = "assert double(4) == 8"
RIGHT = "def double(x):\n    return 2 * x\n"
FEW = Decoding(max_new_tokens=4, batch_size=2)


def test_share_of_programs_that_pass(tiny: LanguageModel, tell: Tell) -> None:
    answers = [
        RIGHT,
        f"Sure:\n```python\n{RIGHT}```\nIt doubles.",
        "def double(x): return x",
        "I cannot do that.",
        "import sys; sys.exit(0)",
    ]
    examples = tell([(RIGHT, answer) for answer in answers])
    metric = CodePassAt1(
        lambda _: TESTS, allow_execution=True, decoding=FEW, limits=Limits(seconds=60)
    )
    assert metric(tiny.model, tiny.tokenizer, examples) == 2 / 5
    assert metric.name == "code_pass_at_1" and metric.direction == "maximize"


def test_tests_by_prompt(tiny: LanguageModel, tell: Tell) -> None:
    examples = tell([(RIGHT, RIGHT), (RIGHT, RIGHT)])
    first, second = (example.record.prompt for example in examples)
    by_prompt = {first: TESTS, second: "assert double(4) == 9"}
    metric = CodePassAt1(by_prompt, allow_execution=True, decoding=FEW, limits=Limits(seconds=60))
    assert metric(tiny.model, tiny.tokenizer, examples) == 1 / 2
    for tests in ({first: TESTS}, {**by_prompt, second: " \n"}):
        with pytest.raises(InputError, match="has no tests, without which every program passes"):
            CodePassAt1(tests, allow_execution=True, decoding=FEW).check(
                tiny.model, tiny.tokenizer, examples
            )


@pytest.mark.parametrize("allowed", [False, 1, "yes"])
def test_nothing_is_run_unless_allowed(allowed: Any) -> None:
    with pytest.raises(InputError, match="allow_execution=True if this machine may run them"):
        CodePassAt1({}, allow_execution=allowed)


def test_not_allowed_by_default() -> None:
    with pytest.raises(InputError, match="which can do harm"):
        CodePassAt1({})


def test_limits_too_low_for_python(tiny: LanguageModel, examples: list[Example]) -> None:
    metric = CodePassAt1(
        lambda _: TESTS,
        allow_execution=True,
        decoding=FEW,
        limits=Limits(seconds=60, memory_bytes=2**20),
    )
    with pytest.raises(InputError, match="an empty program does not pass .* memory_bytes"):
        metric.check(tiny.model, tiny.tokenizer, examples)


def test_tests_of_another_kind() -> None:
    with pytest.raises(InputError, match="expected a dict of sources by prompt, or a function"):
        CodePassAt1("assert True", allow_execution=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("x = 1", "x = 1"),
        ("a\n```python\nx = 1\n```\nb\n```\ny = 2\n```", "x = 1\n"),
        ("```py\nx = 1\n", "x = 1\n"),
        ("```\nx = '```'\n```", "x = '```'\n"),
    ],
)
def test_programs_in_answers(answer: str, program: str, examples: list[Example]) -> None:
    assert answered_program(examples[0], answer) == program
    assert completed_prompt(examples[0], answer) == examples[0].record.prompt + answer
