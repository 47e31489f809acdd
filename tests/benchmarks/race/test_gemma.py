from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.race import gemma
from optuna_llmbo.errors import InputError


PARTS = (b"GGUF", b" in ", b"four ", b"parts")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPTUNA_LLMBO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gemma, "SHA256", hashlib.sha256(b"".join(PARTS)).hexdigest())
    return tmp_path / "cache"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Four installed packages, and what each carries."""
    paths = [tmp_path / f"{gemma.NAME}.part0{i}" for i in range(len(PARTS))]
    for path, content in zip(paths, PARTS, strict=True):
        path.write_bytes(content)
    found = dict(zip(gemma.PACKAGES, paths, strict=True))

    def files(package: str) -> list[SimpleNamespace]:
        path = found[package]
        return [SimpleNamespace(name=path.name, locate=lambda: path)]

    monkeypatch.setattr(importlib.metadata, "files", files)
    return paths


def test_the_parts_are_joined_once(packages: list[Path]) -> None:
    whole = gemma.gguf_file()
    assert whole.name == gemma.NAME
    assert whole.read_bytes() == b"".join(PARTS)
    for path in packages:
        path.unlink()
    assert gemma.gguf_file() == whole


def test_a_damaged_file_is_joined_again(packages: list[Path]) -> None:
    gemma.gguf_file().write_bytes(b"GGUF in two")
    whole = gemma.gguf_file()
    assert whole.read_bytes() == b"".join(PARTS)
    assert list(whole.parent.iterdir()) == [whole]


def test_other_parts_are_refused(packages: list[Path], cache: Path) -> None:
    packages[2].write_bytes(b"five ")
    with pytest.raises(InputError, match="do not make"):
        gemma.gguf_file()
    assert not any(path.is_file() for path in cache.rglob("*"))


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemma, "PACKAGES", ("no-such-package-part1",))
    with pytest.raises(InputError, match="needs the package no-such-package-part1.*pip install"):
        gemma.gguf_file()
