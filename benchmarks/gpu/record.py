"""The record of a part: what was measured, saved at once, and what was left out and why."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import json
from pathlib import Path
from subprocess import TimeoutExpired
import time
import traceback
from typing import Any

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.memory import is_out_of_memory
from optuna_llmbo.lora.memory import release


LEFT_OUT, FAILED = "left_out", "failed"
NO_TIME = "no time was left"
OUT_OF_MEMORY = "out of memory"
_LINES = 12

Cell = dict[str, Any]


class Record:
    """What a part has measured, as a JSON file.

    Args:
        path: of the file.
        about: what the file says of the device and of how it was made.
        until: `time.time()` at which the last measurement must have ended.
    """

    def __init__(self, path: Path, about: dict[str, Any], until: float) -> None:
        self._path = path
        self._until = until
        self._began = time.time()
        self._content: dict[str, Any] = {**about, "complete": False, "cells": {}}
        self._write()

    @property
    def seconds_left(self) -> float:
        """Seconds until its time is over."""
        return self._until - time.time()

    def note(self, **facts: Any) -> None:
        """Keep facts that hold for all cells."""
        self._content |= facts
        self._write()

    def measure(self, name: str, work: Callable[[], Cell], *, needs: float = 0.0) -> Cell | None:
        """Measure one cell, and keep the reason where that is not possible.

        Args:
            name: of the cell.
            work: measures it. A lack of memory, time or a package leaves the cell out; any other
                error is kept as a failure, and the next cell goes on.
            needs: seconds that it takes; with fewer left it is left out.

        Returns:
            What was measured, or None.
        """
        cell: Cell
        if self.seconds_left < needs:
            cell = {LEFT_OUT: NO_TIME}
        else:
            began = time.time()
            cell = _measured(work)
            cell["cell_seconds"] = time.time() - began
            release()
        self._content["cells"][name] = cell
        self._write()
        return None if LEFT_OUT in cell or FAILED in cell else cell

    def leave_out(self, name: str, why: str) -> None:
        """Keep why a cell is not measured."""
        self._content["cells"][name] = {LEFT_OUT: why}
        self._write()

    def complete(self) -> None:
        """Say that nothing more will come."""
        self.note(complete=True)

    def _write(self) -> None:
        self._content["seconds"] = time.time() - self._began
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")  # a part can be killed while it writes
        new.write_text(json.dumps(self._content, indent=1) + "\n")
        new.replace(self._path)


def measured(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the cells of a record that were measured."""
    return {
        name: cell
        for name, cell in record["cells"].items()
        if LEFT_OUT not in cell and FAILED not in cell
    }


def _measured(work: Callable[[], Cell]) -> Cell:
    """The cell; or why there is none, in words, as an exception would keep tensors alive."""
    try:
        return work()
    except (InputError, ImportError, NotImplementedError) as error:
        return {LEFT_OUT: str(error)}
    except TimeoutExpired:
        return {LEFT_OUT: NO_TIME}
    except Exception as error:
        if is_out_of_memory(error):
            return {LEFT_OUT: OUT_OF_MEMORY}
        told = traceback.format_exc().splitlines()[-_LINES:]
        return {FAILED: f"{type(error).__name__}: {error}", "traceback": told}
