"""YAML of plain values: what the tools' configuration files need, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import json
import re


Scalar = str | int | float | bool | None
Value = Scalar | Sequence[Scalar] | Sequence[Mapping[str, Scalar]]

_PLAIN = re.compile(r"[A-Za-z][\w./-]*")
_WORDS_WITH_A_MEANING = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def document(comments: Sequence[str], values: Mapping[str, Value]) -> str:
    """Comment lines, an empty line, and one entry a line."""
    lines = [f"# {comment}".rstrip() for comment in comments]
    lines += [""] if lines else []
    for name, value in values.items():
        lines += _entry(name, value)
    return "\n".join(lines) + "\n"


def _entry(name: str, value: Value) -> list[str]:
    if value is None or isinstance(value, (str, int, float)):
        return [f"{name}: {scalar(value)}"]
    lines = [f"{name}:"]
    for item in value:
        if isinstance(item, Mapping):
            pairs = [f"{key}: {scalar(inner)}" for key, inner in item.items()]
            lines += [f"  {'-' if i == 0 else ' '} {pair}" for i, pair in enumerate(pairs)]
        else:
            lines.append(f"  - {scalar(item)}")
    return lines


def scalar(value: Scalar) -> str:
    """One value; it reads back as what it was under YAML 1.1 and 1.2."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        mantissa, _, exponent = repr(value).partition("e")
        if not exponent:
            return mantissa
        return f"{mantissa}{'' if '.' in mantissa else '.0'}e{exponent}"  # 1e-06 is a text in 1.1
    if isinstance(value, int):
        return str(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS_WITH_A_MEANING:
        return value
    return json.dumps(value, ensure_ascii=False)
