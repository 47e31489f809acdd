"""Our section of a note that the user may write in too."""

from __future__ import annotations

import re


# Link definitions: a reader of the note does not see them, who edits it does.
_BEGIN = (
    "[//]: # (optuna-llmbo writes from here to its end mark anew; your own text stays outside)"
)
_END = "[//]: # (end of what optuna-llmbo writes)"
_SECTION = re.compile(
    rf"(?P<before>.*?){re.escape(_BEGIN)}(?P<ours>.*?){re.escape(_END)}(?P<after>.*)", re.DOTALL
)
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&#$])")


def with_section(note: str, text: str) -> str | None:
    """A note with our section in place of the one that it has, else below the user's text.

    Args:
        note: as it is; what the user wrote in it is kept.
        text: of our section; empty to have none.

    Returns:
        The note as it should be; None if it has one of our marks without the other, or twice: it
        is then left alone, as nobody can say what in it is the user's.
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
    """A study's own text in one line of Markdown, where it shows as it is and does nothing."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(text).split()))


def _joined(*parts: str) -> str:
    return "\n\n".join(part.strip("\n") for part in parts if part.strip())
