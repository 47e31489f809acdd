"""Share of generated programs that pass their tests."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
import re
from typing import Any
from typing import ClassVar

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.generate import check_decoding
from optuna_llmbo.lora.generate import Decoding
from optuna_llmbo.lora.metrics.measure import check_some
from optuna_llmbo.lora.metrics.measure import share
from optuna_llmbo.lora.metrics.measure import TextMetric
from optuna_llmbo.lora.metrics.sandbox import Limits
from optuna_llmbo.lora.metrics.sandbox import run_isolated
from optuna_llmbo.lora.tokens import Example


_FENCED = re.compile(r"^```[\w+-]*[ \t]*\n(.*?)(?:^```|\Z)", re.DOTALL | re.MULTILINE)
_CLOSED = re.compile(r"^```[\w+-]*[ \t]*\n(.*?)^```", re.DOTALL | re.MULTILINE)


def answered_program(example: Example, answer: str) -> str:
    """The first fenced block of an answer, also one without an end; all of it if there is none."""
    fenced = _FENCED.search(answer)
    return fenced.group(1) if fenced else answer


def completed_prompt(example: Example, answer: str) -> str:
    """The prompt continued by the answer, where prompts are the beginning of a program."""
    return example.record.prompt + answer


@dataclass(frozen=True)
class CodePassAt1(TextMetric):
    """Share of the prompts whose one generated program passes its tests, in [0, 1].

    This is pass@1 of Chen et al. 2021 (arXiv:2107.03374, sec. 2.1) with one sample, or with greedy
    decoding. It runs programs that a model has written, isolated by `sandbox`, and so has to
    be allowed.

    Raises:
        InputError: if it is not allowed, or an argument is invalid.
    """

    tests: Mapping[str, str] | Callable[[Example], str]
    """Python source that raises if the program is wrong, by prompt, or from an example."""
    allow_execution: bool = False
    """True: the programs may be run on this machine."""
    program: Callable[[Example, str], str] = answered_program
    """From an example and the generated text to Python source; see also `completed_prompt`."""
    decoding: Decoding = field(default_factory=Decoding)
    limits: Limits = field(default_factory=Limits)
    name: str = "code_pass_at_1"
    direction: ClassVar[str] = "maximize"

    def __post_init__(self) -> None:
        if self.allow_execution is not True:
            raise InputError(
                "this metric runs programs that a model has written, which can do harm: set "
                "allow_execution=True if this machine may run them, at best in a container."
            )
        if not callable(self.tests) and not isinstance(self.tests, Mapping):
            raise InputError(
                f"tests={self.tests!r}: expected a dict of sources by prompt, or a function of "
                "the example."
            )

    def check(self, model: Any, tokenizer: Any, examples: Sequence[Example]) -> None:
        """Check that all have tests, that prompts fit, and that programs can be run.

        Raises:
            InputError: if not.
        """
        check_some(examples)
        check_decoding(model, examples, self.decoding)
        for example in examples:
            self._tests_of(example)
        nothing = run_isolated("", "", self.limits)
        if not nothing.passed:
            raise InputError(
                f"an empty program does not pass under {self.limits}: {nothing.reason}. Give it "
                "more, memory_bytes above all."
            )

    def of_texts(self, texts: Sequence[str], examples: Sequence[Example]) -> float:
        """The value for texts already generated."""
        outcomes = [
            run_isolated(self.program(example, text), self._tests_of(example), self.limits)
            for example, text in zip(examples, texts, strict=True)
        ]
        return share([outcome.passed for outcome in outcomes])

    def decided(self, text: str, example: Example) -> bool:
        """Whether the program is complete: its block has ended."""
        return self.program is answered_program and _CLOSED.search(text) is not None

    def _tests_of(self, example: Example) -> str:
        prompt = example.record.prompt
        tests = self.tests(example) if callable(self.tests) else self.tests.get(prompt)
        if not isinstance(tests, str) or not tests.strip():
            raise InputError(
                f"the prompt {prompt[:60]!r} has no tests, without which every program passes: "
                f"expected Python source, got {tests!r}."
            )
        return tests
