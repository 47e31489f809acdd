"""Durations written for people."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
    """Round a duration and write it as "40 s", "12 min" or "3.5 h"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def exact_duration(seconds: float) -> str:
    """Write a duration without rounding it, as "10 min", "1 h 30 min" or "2.5 s"."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    parts = [f"{n:g} {unit}" for n, unit in ((hours, "h"), (minutes, "min"), (rest, "s")) if n]
    return " ".join(parts) or "0 s"
