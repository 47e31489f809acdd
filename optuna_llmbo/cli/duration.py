"""Durations as people write them: "90m", "2h", "1h30m", or a number of seconds."""

from __future__ import annotations

import math
import re

from optuna_llmbo.errors import InputError


_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)([dhms])")


def seconds_of(text: str | float) -> float:
    """The seconds of a duration, such as "1h30m" or "5400".

    Raises:
        InputError: if it is none, or not above 0.
    """
    told = str(text).strip().lower()
    seconds = math.nan
    if re.fullmatch(f"({_PART.pattern})+", told):
        seconds = sum(float(n) * _SECONDS[unit] for n, unit in _PART.findall(told))
    elif re.fullmatch(r"\d+(\.\d+)?", told):
        seconds = float(told)
    if not seconds > 0 or math.isinf(seconds):
        raise InputError(
            f"{text!r} is no duration: expected seconds, or a number with d, h, m or s, such as "
            "90m, 2h or 1h30m; above 0."
        )
    return seconds
