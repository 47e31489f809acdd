"""Parse arguments and print tables, for scripts."""

from __future__ import annotations

from collections.abc import Sequence


def names(text: str) -> list[str]:
    """Split a comma-separated list."""
    return [part.strip() for part in text.split(",")]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format cells as a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
