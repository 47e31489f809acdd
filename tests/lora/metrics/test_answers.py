from __future__ import annotations

import threading

import pytest

from optuna_llmbo.lora.metrics.answers import math_reading
from optuna_llmbo.lora.metrics.answers import number
from optuna_llmbo.lora.metrics.answers import plain_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("So 2+2=4.\n#### 4", "4"),
        ("#### 1,234,567", "1234567"),
        ("#### -3.5 dollars", "-3.5"),
        ("####7\n#### 8", "7"),
        ("#### 7 of 8", "7"),
        ("#### .5", "0.5"),
        ("#### $1,200.00", "1200"),
        ("#### -$5", "-5"),
        ("#### \u22125", "-5"),
        ("#### 50%", "50"),
        ("#### **42**", "42"),
        ("#### -0.0", "0"),
        ("#### 100", "100"),
        ("#### 007", "7"),
        (f"#### {'9' * 40}.10", f"{'9' * 40}.1"),
        ("#### four\n5", "5"),
        ("x=-3", "-3"),
        ("it was 3, now it is 4.", "4"),
        ("between 10-5", "5"),
        ("3 - 5 = -2", "-2"),
        ("the list is 1,2,3", "3"),
        ("12345,678", "678"),
        ("#### four", None),
        ("none", None),
        ("", None),
    ],
)
def test_number(text: str, expected: str | None) -> None:
    assert number(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [(" a  b\n c ", "a b c"), ("A", "A"), (" \n", None), ("", None)]
)
def test_plain_text(text: str, expected: str | None) -> None:
    assert plain_text(text) == expected


MATH = [
    ("so \\boxed{\\frac{1}{2}}", "the answer is $0.5$", True),
    ("\\frac{1}{2}", "1/2", True),
    ("\\frac{1}{2}", "2", False),
    ("$x^2 + 2x + 1$", "$(x+1)^2$", True),
    ("$\\sqrt{8}$", "\\boxed{2\\sqrt{2}}", True),
    ("\\boxed{(1, 2)}", "$(2, 1)$", False),
    ("\\boxed{7}", "8", False),
]


@pytest.mark.parametrize(("expected", "found", "same"), MATH)
def test_math(expected: str, found: str, same: bool) -> None:
    pytest.importorskip("math_verify")
    reading = math_reading()
    answers = reading.extract(expected), reading.extract(found)
    assert None not in answers
    assert reading.same(*answers) is same


def test_math_without_an_answer() -> None:
    pytest.importorskip("math_verify")
    assert math_reading().extract("") is None


def test_math_in_another_thread() -> None:
    """Optuna's n_jobs; math-verify's timeouts need the main thread."""
    pytest.importorskip("math_verify")
    results = []

    def work() -> None:
        reading = math_reading()
        answers = [reading.extract(text) for text in ("$0.25$", "\\boxed{\\frac{1}{4}}")]
        results.append(reading.same(*answers))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [True]
