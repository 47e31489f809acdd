"""How a trial whose command has ended by itself is to be counted."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
import os
from pathlib import Path
import re
import signal
from typing import Literal

from optuna_llmbo.command.process import Exit


_OUT_OF_MEMORY = re.compile(
    r"(?:CUDA|HIP|XPU|MPS backend|GPU) out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED"
    r"|DefaultCPUAllocator: (?:can't|not enough)|std::bad_alloc|RESOURCE_EXHAUSTED"
    r"|^MemoryError|Cannot allocate memory",
    re.MULTILINE,
)
_READ = 4 << 20
"""Last bytes of a log that are searched."""
KEPT = 2000
"""Last characters of a log that are kept as an attribute; they fit every storage's."""
_LINE = 160


@dataclass(frozen=True)
class Ending:
    """Why a trial has no result.

    Attributes:
        kind: "infeasible": the configuration cannot be run; "failed": it says nothing about it.
        reason: why, in a few words.
    """

    kind: Literal["infeasible", "failed"]
    reason: str


def ending_of(exit: Exit, log: Path) -> Ending | None:
    """What an exit code and the log say; None if the command ended well."""
    if exit.code == 0:
        return None
    text = log_end(log, _READ)
    if found := _OUT_OF_MEMORY.search(text):
        return Ending("infeasible", f"out of memory ({_line_around(text, found.start())})")
    if exit.signal == signal.SIGKILL:
        return Ending("infeasible", "killed by SIGKILL, as the system does when memory runs out")
    how = f"exit code {exit.code}"
    if exit.signal is not None:
        how = f"ended by {_name(exit.signal)}"
    last = text.rstrip().rpartition("\n")[2].strip()
    return Ending("failed", f"{how}: {last[-_LINE:]}" if last else f"{how}, without output")


def log_end(log: Path, size: int = KEPT) -> str:
    """The end of a log, of at most so many bytes; progress bars as they were last."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - size))
        text = file.read().decode(errors="replace")
        lines = text.rstrip("\r\n").split("\n")
        return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
    return ""


def _line_around(text: str, place: int) -> str:
    start = text.rfind("\n", 0, place) + 1
    return text[start:].partition("\n")[0].strip()[:_LINE]


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
