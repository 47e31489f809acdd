"""How values are written so that every program reads what was meant."""

from __future__ import annotations

import numbers
from typing import Any


def number_text(value: float) -> str:
    """Write a float so that YAML 1.1 and 1.2, JSON, TOML and Python read the same float.

    YAML 1.1, which PyYAML reads, takes `1e-05` for text: it wants a point and a signed exponent.
    """
    mantissa, has_exponent, exponent = repr(float(value)).partition("e")
    if not has_exponent:
        return mantissa
    point = "" if "." in mantissa else ".0"
    sign = "" if exponent[0] in "+-" else "+"
    return f"{mantissa}{point}e{sign}{exponent}"


def value_text(value: Any) -> str:
    """Write a value into a command or an environment variable: `true` and `false` for booleans."""
    if isinstance(value, bool):
        return str(value).lower()
    return number_text(value) if isinstance(value, float) else str(value)


def is_number(value: Any) -> bool:
    """Whether a value is a number, and no boolean."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def number_of(value: Any) -> float | None:
    """The number that a value is or says as text, such as "1e-4"; None if it is none."""
    if is_number(value):
        return float(value)
    if not isinstance(value, str):
        return None
    try:
        return float(value)
    except ValueError:
        return None
