"""Extract answers from texts, for exact match to compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
import operator
import re
import threading
from typing import Any

from optuna_llmbo.lora.metrics.measure import optional_module


Extract = Callable[[str], Any]
"""A text -> its answer, or None where there is none."""

_NUMBER = re.compile(
    r"(?P<sign>(?<![\w.)])[-\u2212])?[$\u20ac\u00a3]?\s?"  # no sign in "10-5"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|(?<!\d)\.\d+)"
)
_MARK = "####"
_MATH_MARKS = ("$", "\\boxed", "\\(", "\\[")
_MATH_SECONDS = 5


@dataclass(frozen=True)
class Reading:
    """How to extract answers, and when two are equal."""

    extract: Extract
    same: Callable[[Any, Any], bool] = operator.eq
    """(expected, found) -> are they the same answer?"""
    decided: Callable[[str, str], bool] = lambda text, response: False
    """(beginning of a text, response) -> is the outcome the same however the text goes on?"""


def plain_text(text: str) -> str | None:
    """The text with single spaces; None if it is blank."""
    return " ".join(text.split()) or None


def is_other_text(text: str, response: str) -> bool:
    """Whether a text that begins like this is another one than the response, up to whitespace."""
    return not " ".join(response.split()).startswith(" ".join(text.split()))


def number(text: str) -> str | None:
    """The number after the first "####", on its line, else the last number of the text.

    "$1,234.50" and "1234.5 %" are "1234.5": signs of currency and percent, thousands separators
    and trailing zeros do not count. This is how GSM8K marks its answers (Cobbe et al. 2021,
    arXiv:2110.14168); a model that was not trained on them mostly ends with the answer.

    Returns:
        The number in plain decimal notation, or None if there is none.
    """
    _, _, marked = text.partition(_MARK)
    behind = list(_NUMBER.finditer(marked.strip().partition("\n")[0]))
    numbers = behind[:1] or list(_NUMBER.finditer(text))[-1:]
    if not numbers:
        return None
    (match,) = numbers
    plain = f"{Decimal(match['digits'].replace(',', '')):f}"  # no zeros in front
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    return f"-{plain}" if match["sign"] and plain != "0" else plain


def has_marked_number(text: str, response: str) -> bool:
    """Whether the line behind the first "####" has ended and has a number in it."""
    _, _, marked = text.partition(_MARK)
    line, end, _ = marked.lstrip().partition("\n")
    return bool(end) and _NUMBER.search(line) is not None


def math_reading() -> Reading:
    """Mathematical expressions and LaTeX, equal if they have one value; through `math-verify`.

    The limit of 5 seconds for one answer holds in the main thread only, where signals arrive.

    Raises:
        InputError: if math-verify is not installed.
    """
    library = optional_module("math_verify", "math-verify", "math")

    def parse(text: str) -> list[Any]:
        parsed: list[Any] = library.parse(text, parsing_timeout=_math_seconds())
        return parsed

    def extract(text: str) -> list[Any] | None:
        bare = "\\" in text and not any(mark in text for mark in _MATH_MARKS)
        return (parse(f"${text}$") if bare else []) or parse(text) or None

    def same(expected: list[Any], found: list[Any]) -> bool:
        return bool(library.verify(expected, found, timeout_seconds=_math_seconds()))

    return Reading(extract, same)


def _math_seconds() -> int | None:
    in_main = threading.current_thread() is threading.main_thread()
    return _MATH_SECONDS if in_main else None


READINGS: dict[str, Callable[[], Reading]] = {
    "text": lambda: Reading(plain_text, decided=is_other_text),
    "gsm8k": lambda: Reading(number, decided=has_marked_number),
    "math": math_reading,
}
