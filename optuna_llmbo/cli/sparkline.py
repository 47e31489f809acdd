"""A series of numbers as one line of text."""

from __future__ import annotations

from collections.abc import Sequence
import math


BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-:=+*#"


def sparkline(values: Sequence[float], width: int, *, ascii_only: bool = False) -> str:
    """One character per value, taller for larger values, scaled from the smallest to the largest.

    Args:
        values: any number of values; non-finite ones are left out.
        width: maximum number of characters; with more values, each character is the mean of
            consecutive ones.
        ascii_only: draw with `ASCII` instead of `BLOCKS`.
    """
    levels = ASCII if ascii_only else BLOCKS
    finite = [value for value in values if math.isfinite(value)]
    n = min(width, len(finite))
    ends = [i * len(finite) // n for i in range(n + 1)] if n > 0 else []
    means = [sum(finite[i:j]) / (j - i) for i, j in zip(ends, ends[1:], strict=False)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    scale = (len(levels) - 1) / (high - low) if high > low else 0.0
    return "".join(levels[round((mean - low) * scale)] for mean in means)
