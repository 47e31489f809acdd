"""Files that metrics are read from while a command runs."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
import fnmatch
import os
from pathlib import Path
import re
from typing import Protocol

from optuna_llmbo.command.entries import entries_of_json
from optuna_llmbo.command.entries import Entry
from optuna_llmbo.command.entries import entry_of_line
from optuna_llmbo.command.entries import entry_of_match
from optuna_llmbo.command.folders import OWN
from optuna_llmbo.command.following import Following


RESULTS = ("all_results.json", "eval_results.json")
"""What the Hugging Face tools write when all is done."""
_WATCHED = ("trainer_state.json", "*.jsonl")
_DEEPEST = 4
"""Folders below the trial's that are looked into."""
_LARGEST = 64 << 20
"""Bytes of a JSON file beyond which it is not read."""


class Source(Protocol):
    """A file with metrics."""

    rank: int
    """Of two sources that tell the same, the one of the higher rank is exact."""
    entries: list[Entry]
    """All that it says, in its order."""

    def read(self, *, is_final: bool) -> bool:
        """Read what is new; whether there is anything."""


class Lines:
    """A file with an entry a line."""

    def __init__(self, path: Path, parse: Callable[[str], Entry | None], rank: int) -> None:
        self.rank = rank
        self.entries: list[Entry] = []
        self._file = Following(path)
        self._parse = parse

    def read(self, *, is_final: bool) -> bool:
        """Read what is new; whether there is anything."""
        lines, again = self._file.read(is_final=is_final)
        if again:
            self.entries = []
        new = [one for one in map(self._parse, lines) if one is not None]
        self.entries += new
        return bool(new) or again


class WholeFile:
    """A JSON file that is written anew whenever there is news."""

    def __init__(self, path: Path, rank: int) -> None:
        self.rank = rank
        self.entries: list[Entry] = []
        self._path = path
        self._seen: tuple[int, ...] = ()

    def read(self, *, is_final: bool) -> bool:
        """Read it if it has changed; one that is half written keeps what it said before."""
        try:
            stat = self._path.stat()
            now = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if now == self._seen or stat.st_size > _LARGEST:
                return False
            entries = entries_of_json(self._path.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            return False
        if entries is None:
            return False
        self.entries, self._seen = entries, now
        return True


def line_parser(pattern: re.Pattern[str] | None, metric: str) -> Callable[[str], Entry | None]:
    """What reads the lines of a log: the user's expression, else the dicts that are printed."""
    if pattern is None:
        return entry_of_line

    def parse(line: str) -> Entry | None:
        found = pattern.search(line)
        return None if found is None else entry_of_match(found, metric)

    return parse


def is_final_only(path: Path) -> bool:
    """Whether a file says how a run ended, not how it goes."""
    return path.name in RESULTS


def find(folder: Path, files: Iterable[str]) -> list[Path]:
    """The files with metrics in a trial's folder.

    Args:
        folder: the trial's folder.
        files: patterns of files, relative to the folder or absolute; empty for the names that the
            Hugging Face tools use, and all JSON lines.
    """
    patterns = list(files)
    if patterns:
        found = {path for pattern in patterns for path in _matching(folder, pattern)}
        return sorted(path for path in found if path.name not in OWN)
    names = (*_WATCHED, *RESULTS)
    return [
        path
        for path in _below(folder)
        if any(fnmatch.fnmatch(path.name, pattern) for pattern in names)
    ]


def _matching(folder: Path, pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_absolute():
        root = Path(path.anchor)
        return list(root.glob(str(path.relative_to(root))))
    return list(folder.glob(pattern))


def _below(folder: Path) -> list[Path]:
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        folders[:] = sorted(f for f in folders if depth < _DEEPEST and not f.startswith("."))
        found += [Path(place) / name for name in sorted(files)]
    return found
