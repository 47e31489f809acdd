"""Maintain our section of a note that the user may also edit."""

from __future__ import annotations

import re


# Link definitions: visible when a note is edited, not when it is read.
_BEGIN = (
    "[//]: # (optuna-llmbo writes from here to its end mark anew; your own text stays outside)"
)
_END = "[//]: # (end of what optuna-llmbo writes)"
_SECTION = re.compile(
    rf"(?P<before>.*?){re.escape(_BEGIN)}(?P<ours>.*?){re.escape(_END)}(?P<after>.*)", re.DOTALL
)
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&#$])")


def with_section(note: str, text: str) -> str | None:
    """Replace our section of a note, or add one below the user's text.

    Args:
        note: the current note; the user's text in it is kept.
        text: new text of our section; empty to remove the section.

    Returns:
        The new note; None if one of our marks is missing or repeated, so that our text cannot be
        told from the user's and the note must be left alone.
    """
    marks = (note.count(_BEGIN), note.count(_END))
    section = f"{_BEGIN}\n\n{text.strip()}\n\n{_END}" if text.strip() else ""
    if marks == (0, 0):
        return _joined(note, section) if section else note
    found = _SECTION.fullmatch(note)
    if marks != (1, 1) or found is None:
        return None
    return _joined(found["before"], section, found["after"])


def escape(text: object) -> str:
    """Escape a study's text to one line of Markdown that shows it literally."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(text).split()))


def _joined(*parts: str) -> str:
    return "\n\n".join(part.strip("\n") for part in parts if part.strip())
