"""Programs of unknown intent, run apart from this process and with limits.

    this process
      -> sandbox_launcher.py   a session of its own; enters namespaces; ends everything in time
           -> sandbox_harness.py   under the limits; runs the program and its tests

What it keeps out are the accidents of generated code, not an attacker: a program can read what
the user can, and do more where the system permits no namespaces, as a warning says then. A
container or a virtual machine around the whole is the stronger wall.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from dataclasses import asdict
from dataclasses import dataclass
import json
import math
import os
from pathlib import Path
import secrets
import signal
import subprocess
import sys
import tempfile
import time

from optuna_llmbo.errors import check_at_least
from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once


_FOLDER = Path(__file__).parent
_GRACE = 5.0  # seconds that the launcher may take to start and to end everything
_MOST_READ = 1 << 16  # bytes; what a pipe holds
# Nothing of the user's; numerical libraries would start a thread a core, beyond `processes`.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Limits:
    """Resource limits of a program.

    Raises:
        InputError: if a limit is not positive.
    """

    seconds: float = 10.0
    """By the clock, start of the interpreter included; and of CPU time, but for rounding up."""
    memory_bytes: int = 2**30
    """Of address space, for each process. Python itself takes some 20 MB, NumPy 300 MB."""
    file_bytes: int = 2**24
    """Largest file; and all files together, where namespaces are permitted."""
    processes: int = 16
    """At once, threads included; without namespaces, all others of the user count too, so that
    mostly none can be started. Linux exempts the root user."""
    open_files: int = 64

    def __post_init__(self) -> None:
        for name in ("memory_bytes", "file_bytes", "processes", "open_files"):
            check_at_least(name, getattr(self, name), 1)
        number = isinstance(self.seconds, (int, float)) and math.isfinite(self.seconds)
        if not number or self.seconds <= 0:
            raise InputError(f"seconds must be a number above 0; got {self.seconds!r}.")


@dataclass(frozen=True)
class ProgramResult:
    """Result of a program."""

    passed: bool
    """Program and tests ran to their end."""
    reason: str
    """"passed", "timeout", "ended early", or the exception."""


def run_isolated(
    program: str, tests: str, limits: Limits | None = None, *, namespaces: bool = True
) -> ProgramResult:
    """Run a program and then its tests in one module named "solution", in a process of its own.

    It has the interpreter and packages of this process, in isolated mode; no environment, standard
    input or output; and an empty working folder that is removed afterwards. On Linux, where users
    may make namespaces, it has no network, sees no other process and can write nothing elsewhere.
    Where they may not, as in many containers, Landlock keeps it from writing elsewhere and from
    TCP, as far as the kernel has it; a warning says once what is open. Whatever it started has
    ended when this returns.

    That it has passed it can only say with a random token, which the harness reads after the
    tests: leaving early with an exit status of success is no pass.

    Args:
        program: Python source.
        tests: Python source that raises if the program is wrong.
        limits: default: `Limits()`.
        namespaces: False: do as on a system that permits none.

    Raises:
        InputError: if the system has no POSIX processes, or the sandbox cannot start.
    """
    if os.name != "posix":
        raise InputError(f"generated code can be run on POSIX systems only, not on {os.name!r}.")
    limits = limits or Limits()
    token = secrets.token_hex(16).encode()
    job = json.dumps({"program": program, "tests": tests}).encode()
    with (
        _pipe() as (secret, secret_in),
        _pipe() as (result, result_in),
        tempfile.TemporaryDirectory(prefix="sandbox-", ignore_cleanup_errors=True) as folder,
    ):
        os.write(secret_in, token)
        settings = asdict(limits) | {
            "namespaces": namespaces,
            "folder": folder,
            "harness": str(_FOLDER / "sandbox_harness.py"),
            "secret": secret,
            "result": result_in,
        }
        seconds, errors = _launch(settings, job, limits.seconds)
        os.set_blocking(result, False)
        said = _read(result)
    return _result(said, token, limits, seconds, errors)


def _launch(settings: dict[str, object], job: bytes, seconds: float) -> tuple[float, str]:
    """Run the launcher to its end: seconds taken, and what it wrote to standard error."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-I", str(_FOLDER / "sandbox_launcher.py"), json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=str(settings["folder"]),
        env=_ENVIRONMENT,
        pass_fds=(settings["secret"], settings["result"]),  # type: ignore[arg-type]
        start_new_session=True,
    )
    errors = b""
    try:
        _, errors = process.communicate(job, timeout=seconds + _GRACE)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if process.poll() is None:  # late, or this process was interrupted
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for stream in (process.stdin, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
    return time.monotonic() - started, errors.decode(errors="replace")


def _result(
    said: bytes, token: bytes, limits: Limits, seconds: float, errors: str
) -> ProgramResult:
    report, newline, verdict = said.partition(b"\n")
    if not newline:
        raise InputError(f"the sandbox for generated code did not start: {errors[-500:]!r}.")
    _warn(json.loads(report))
    if verdict == token:
        return ProgramResult(True, "passed")
    if verdict.startswith(b"!"):
        return ProgramResult(False, verdict[1:].decode(errors="replace"))
    return ProgramResult(False, "timeout" if seconds >= limits.seconds else "ended early")


def _warn(report: dict[str, list[str]]) -> None:
    if unlimited := report["unlimited"]:
        warn_once(f"the system sets no {', '.join(unlimited)} for generated code.")
    if reaches := report["reaches"]:
        warn_once(
            f"generated code can reach {', '.join(reaches)}, for lack of namespaces. Run it in a "
            "container or a virtual machine that holds nothing of value."
        )


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe, closed afterwards."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def _read(pipe: int) -> bytes:
    try:
        return os.read(pipe, _MOST_READ)
    except BlockingIOError:  # nothing was written
        return b""
