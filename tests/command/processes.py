"""Which processes are there."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import os
from pathlib import Path
import subprocess
from subprocess import Popen
import sys
import time


ROOT = Path(__file__).parents[2]


def is_alive(process: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until(what: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for something to be so."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def begin(
    *arguments: str, code: str = "from optuna_llmbo.cli import main; main()"
) -> Popen[bytes]:
    """Run `optuna-llmbo`, or other code of this repository, in a process that can be killed."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=env, stdout=subprocess.PIPE
    )


def running_of(folder: Path) -> list[int]:
    """The processes with a folder in their command, other than the one that asks."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = line.read_bytes().split(b"\0")
            if any(str(folder).encode() in word for word in words):
                found.append(int(line.parent.name))
    return [process for process in found if is_alive(process)]
