"""Small made-up tables in the place of the published ones."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pandas
import pytest

from benchmarks.race import real_tables


class MadeUp:
    """A folder of tables, whose checksums are taken to be right."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._monkeypatch = folder, monkeypatch
        monkeypatch.setenv(real_tables.VARIABLE, str(folder))

    def write(self, name: str, rows: list[dict[str, Any]]) -> Path:
        source = real_tables.SOURCES[name]
        path = self._folder / source.file
        path.parent.mkdir(parents=True, exist_ok=True)
        pandas.DataFrame(rows).to_csv(path, index=False)
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        known = dataclasses.replace(source, sha256=checksum)
        self._monkeypatch.setitem(real_tables.SOURCES, name, known)
        return path


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    return MadeUp(tmp_path, monkeypatch)
