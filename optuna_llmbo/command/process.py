"""A command that runs in the background, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
from dataclasses import dataclass
import json
import os
from pathlib import Path
import select
import signal
import subprocess
import sys

from optuna_llmbo.command import launcher
from optuna_llmbo.errors import InputError


@dataclass(frozen=True)
class Exit:
    """How a command ended."""

    code: int
    """Its exit code; negative for the signal that ended it."""
    was_stopped: bool
    """Whether it was asked to stop."""
    left: tuple[int, ...]
    """Processes of it that could not be killed."""

    @property
    def signal(self) -> int | None:
        """The signal that ended it, also where a shell tells of it as 128 more; else None."""
        if self.code < 0:
            return -self.code
        return self.code - 128 if 128 < self.code < 128 + signal.NSIG else None


class Process:
    """A command and all processes that it starts, in sessions of their own.

    They end with this process, however it ends: `launcher.py` stands between, and stops them once
    the pipe from here is closed.

    Args:
        words: the program and its arguments.
        env: the whole environment.
        log: the file to which its output is added.
        grace: seconds from asking it to stop until it is killed.
        stop_words: a command that is run as well when it is to stop; empty for none.
        end_file: a file that says how it ended, also if this process is no more; None for none.

    Raises:
        InputError: if the program cannot be started.
    """

    def __init__(
        self,
        words: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        grace: float,
        stop_words: Sequence[str] = (),
        *,
        end_file: Path | None = None,
    ) -> None:
        status, told = os.pipe()
        settings = {
            "words": list(words),
            "stop_words": list(stop_words),
            "grace": grace,
            "status": told,
            "end_file": None if end_file is None else str(end_file),
        }
        with log.open("ab") as output:
            self._launcher = subprocess.Popen(
                [sys.executable, "-I", "-S", launcher.__file__, json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=dict(env),
                pass_fds=(told,),
                start_new_session=True,  # the terminal's Ctrl-C is for the search
            )
        os.close(told)
        self._status = status
        self._rest = b""
        self._pid: int | None = None
        self.exit: Exit | None = None
        self._read_until_started(words[0])

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended, at most so long; whether it has."""
        if self.exit is None and _is_readable(self._status, seconds):
            self._read()
        return self.exit is not None

    def stop(self) -> Exit:
        """Ask it to stop unless it has ended, and wait until nothing of it is left."""
        if self.exit is None:
            assert self._launcher.stdin is not None
            with contextlib.suppress(OSError):
                self._launcher.stdin.close()
        while self.exit is None:
            self.wait(60.0)
        return self.exit

    def _read_until_started(self, program: str) -> None:
        try:
            while self._pid is None and self.exit is None:
                self.wait(60.0)
        except OSError as error:
            raise InputError(
                f"the program {program!r} cannot be started ({error}): check its name, or give "
                "its whole path."
            ) from error

    def _read(self) -> None:
        new = os.read(self._status, 4096)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            self._hear(json.loads(line))
        if not new:
            self._launcher_is_gone()

    def _hear(self, facts: dict[str, object]) -> None:
        if "error" in facts:
            self._close()
            raise OSError(facts["error"])
        if "pid" in facts:
            self._pid = int(str(facts["pid"]))
        if "code" in facts:
            code, left = facts["code"], facts["left"]
            assert isinstance(left, list)
            ended = -signal.SIGKILL if code is None else int(str(code))
            self._close()
            self.exit = Exit(ended, bool(facts["stopped"]), tuple(left))

    def _launcher_is_gone(self) -> None:
        """It was killed itself: end what can still be found, and count it as killed."""
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
        self._close()
        self.exit = Exit(-signal.SIGKILL, False, ())

    def _close(self) -> None:
        os.close(self._status)
        assert self._launcher.stdin is not None
        with contextlib.suppress(OSError):
            self._launcher.stdin.close()
        self._launcher.wait()


def _is_readable(descriptor: int, seconds: float) -> bool:
    """Wait for something to read; `select` would take the first 1024 descriptors only."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(1000 * seconds))
