"""A recipe as files that fine-tuning tools load.

What a tool cannot express is an error that names the hyperparameter and the tool; nothing is left
out in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import os
from pathlib import Path

from optuna_llmbo.errors import check_choice
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.export import axolotl
from optuna_llmbo.lora.export import llamafactory
from optuna_llmbo.lora.export import peft
from optuna_llmbo.lora.export import trl
from optuna_llmbo.lora.export import unsloth
from optuna_llmbo.lora.export.facts import Facts as Facts
from optuna_llmbo.lora.export.facts import round_alpha as round_alpha


__all__ = ["TOOLS", "Facts", "files", "round_alpha", "write", "write_files"]

_FILES: dict[str, Callable[[Facts], dict[str, str]]] = {
    "peft": peft.files,
    "trl": trl.files,
    "llamafactory": llamafactory.files,
    "axolotl": axolotl.files,
    "unsloth": unsloth.files,
}
TOOLS = tuple(_FILES)


def files(facts: Facts, to: str) -> dict[str, str]:
    """The files of a tool: text by path within their folder.

    Args:
        facts: the training.
        to: one of `TOOLS`.

    Raises:
        InputError: if the tool is unknown, or cannot express the training.
    """
    check_choice("to", to, TOOLS)
    return _FILES[to](facts)


def write(
    facts: Facts, to: str, folder: str | os.PathLike[str], *, overwrite: bool = False
) -> list[Path]:
    """Write the files of a tool.

    Args:
        facts: the training.
        to: one of `TOOLS`.
        folder: new or empty, unless `overwrite`.
        overwrite: replace files of the same names, and leave others alone.

    Returns:
        The paths of the files.

    Raises:
        InputError: if the tool is unknown or cannot express the training, or the folder cannot be
            written to or is not empty.
    """
    return write_files(files(facts, to), folder, overwrite=overwrite)


def write_files(
    contents: Mapping[str, str], folder: str | os.PathLike[str], *, overwrite: bool = False
) -> list[Path]:
    """Write files of any kind.

    Args:
        contents: text by path within the folder.
        folder: new or empty, unless `overwrite`.
        overwrite: replace files of the same names, and leave others alone.

    Returns:
        The paths of the files.

    Raises:
        InputError: if the folder cannot be written to or is not empty.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is not a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise InputError(f"the folder {str(folder)!r} is not empty: name a new one, or overwrite.")
    paths = []
    for name, text in contents.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {str(path)!r}: {error.strerror}.") from error
        paths.append(path)
    return paths
