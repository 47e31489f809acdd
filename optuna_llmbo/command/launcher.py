"""A script: runs a command and, when it is asked to or its parent dies, ends all that it started.

It knows the standard library only. It has a process to itself so that a search that is killed, by
`kill -9` too, leaves nothing running: the end of the pipe that is its input tells it. See
`process.Process`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
from pathlib import Path
import select
import signal
import sys
import time
from typing import Any


_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # of <linux/prctl.h>
_CHANGED = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE)
"""Signals that this process, or Python, handles in another way than programs expect."""
_PAUSE = 0.02
_LONGEST_KILL = 30.0
"""Seconds after which processes that survive being killed are given up: the kernel holds them."""

_on_linux = sys.platform == "linux"


def main() -> None:
    """Run the command, and tell how it ended."""
    settings = json.loads(sys.argv[1])
    status = settings["status"]
    os.set_inheritable(status, False)
    if _on_linux:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphans become ours, to be ended
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    terminated: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: terminated.append(number))
    launched = _launch(settings["words"])
    if isinstance(launched, str):
        _tell(status, {"error": launched})
        return
    _tell(status, {"pid": launched})
    command = _Command(launched)
    while not command.has_ended:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
        command.reap()
        if 0 in ready or terminated:  # a word, or the end of the pipe: both mean to stop
            break
    stopped = not command.has_ended
    left = command.end(settings["grace"], settings["stop_words"] if stopped else [])
    facts = {"code": command.code, "stopped": stopped, "left": left}
    if settings["end_file"]:
        _keep(settings["end_file"], facts)
    _tell(status, facts)


def _tell(status: int, facts: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # nobody may be there to hear it
        os.write(status, json.dumps(facts).encode() + b"\n")


def _keep(file: str, facts: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # a full disk, or a folder that was removed
        Path(f"{file}.new").write_text(json.dumps(facts))
        os.replace(f"{file}.new", file)


def _launch(words: list[str]) -> int | str:
    """Start a command in a session of its own; its process, or why there is none."""
    error_out, error_in = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.setsid()
            if _on_linux:
                _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            for number in _CHANGED:
                signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)
            os.execvp(words[0], words)
        except BaseException as error:
            os.write(error_in, (getattr(error, "strerror", None) or repr(error)).encode())
        finally:
            os._exit(127)
    os.close(error_in)
    why = b""
    while piece := os.read(error_out, 4096):
        why += piece
    os.close(error_out)
    return why.decode() or process


class _Command:
    """The command and all processes that it started."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._children_left = True
        self.code: int | None = None
        """Its exit code, negative for a signal; None while it runs."""

    @property
    def has_ended(self) -> bool:
        return self.code is not None

    def reap(self) -> None:
        """Take note of children that have ended."""
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._children_left = False
                return
            if process == 0:
                return
            if process == self._process:
                self.code = os.waitstatus_to_exitcode(status)

    def end(self, grace: float, stop_words: list[str]) -> list[int]:
        """Ask all processes that are left to stop, wait, and kill them.

        Args:
            grace: seconds to wait.
            stop_words: a command that is run as well; empty for none.

        Returns:
            Those that could not be killed.
        """
        self._signal(signal.SIGTERM)
        if stop_words:
            _launch(stop_words)  # one of ours now: it is waited for, and killed with the rest
        self._wait(grace)
        until = time.monotonic() + _LONGEST_KILL
        while not self._is_over() and time.monotonic() < until:
            self._signal(signal.SIGKILL)
            self._wait(5 * _PAUSE)
        return [] if self._is_over() else _descendants()

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._is_over() and time.monotonic() < until:
            time.sleep(_PAUSE)

    def _is_over(self) -> bool:
        self.reap()
        if _on_linux:  # all that it started become our children sooner or later
            return not self._children_left
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process, 0)
            return False
        return self.has_ended

    def _signal(self, number: int) -> None:
        for process in _descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
        if self.has_ended and _on_linux:
            return  # its number may be another's by now, and none of its own is overlooked
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process, number)


def _descendants() -> list[int]:
    """Of this process, by Linux's list of all processes."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (name) state parent ...; a name may hold spaces and brackets
            parent = int(status.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(status.parent.name))
    found, new = [], [os.getpid()]
    while new:
        new = [child for process in new for child in children.get(process, [])]
        found += new
    return found


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main()
