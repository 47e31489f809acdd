"""What scripts read from a command line and print."""

from __future__ import annotations

from collections.abc import Sequence


def names(text: str) -> list[str]:
    """What stands between commas."""
    return [part.strip() for part in text.split(",")]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
