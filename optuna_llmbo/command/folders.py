"""The folders of a search's trials."""

from __future__ import annotations

import json
from pathlib import Path
import time

from optuna_llmbo.errors import InputError


_MARK = "search.txt"
LOG = "log.txt"
END = "ended.json"
"""How the command ended, written by its launcher."""

FACTS = "trial.json"
"""What the trial is: its parameters, and the command that was run."""
OWN = (END, FACTS)
"""Files that are not the command's, where they could be taken for it."""


def claim(folder: Path, search_id: str, study: str) -> None:
    """Make a folder that of one study, so that no trial meets another's files.

    Args:
        folder: where the trials' folders are.
        search_id: a word that is the study's own.
        study: the study's name.

    Raises:
        InputError: if it is another study's, or cannot be made.
    """
    mark = folder / _MARK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with mark.open("x", encoding="utf-8") as file:
                file.write(f"{search_id}\nstudy {study}\n")
                return
        except FileExistsError:
            there, whose = _read(mark)
    except OSError as error:
        raise InputError(
            f"the folder {str(folder)!r} cannot be used ({error.strerror}): give another one."
        ) from error
    if there != search_id:
        raise InputError(
            f"the folder {str(folder)!r} has the trials of another search ({whose}): give "
            "another --folder, or go on with that study and its storage."
        )


def _read(mark: Path) -> tuple[str, str]:
    """The id and the study in a mark, which another worker may be about to write."""
    for _ in range(20):
        there, has_end, whose = mark.read_text(encoding="utf-8").partition("\n")
        if has_end and whose.endswith("\n"):
            break
        time.sleep(0.1)
    return there, whose.strip()


def write(file: Path, text: str) -> None:
    """Write a file of a trial.

    Raises:
        InputError: if that is not possible, as on a full disk.
    """
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"the file {str(file)!r} cannot be written ({error.strerror}): give another --folder, "
            "or make room."
        ) from error


def of(folder: Path, number: int) -> Path:
    """The absolute path of a trial's folder."""
    return (folder / f"trial-{number:04}").resolve()


def has_ended_well(place: Path) -> bool:
    """Whether a trial's command has run to its end there, and said that all is well."""
    try:
        ended = json.loads((place / END).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return ended == {"code": 0, "stopped": False, "left": []}


def make(folder: Path, number: int) -> Path:
    """Make the folder of a trial.

    Returns:
        Its absolute path.

    Raises:
        InputError: if it is there already, or cannot be made.
    """
    place = of(folder, number)
    try:
        place.mkdir(parents=True)
    except FileExistsError as error:
        raise InputError(
            f"the trial's folder {str(place)!r} is there already: its study must have been "
            "deleted, or put back to an earlier state. Move the folder away, or give another "
            "--folder."
        ) from error
    except OSError as error:
        raise InputError(f"the folder {str(place)!r} cannot be made: {error}") from error
    return place
