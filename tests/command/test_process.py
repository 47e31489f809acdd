"""Commands and the processes that they start; what is here needs Linux's list of processes."""

from __future__ import annotations

import json
import os
from pathlib import Path
import resource
import signal
import sys

import pytest

from optuna_llmbo.command.ending import ending_of
from optuna_llmbo.command.ending import log_end
from optuna_llmbo.command.process import Exit
from optuna_llmbo.command.process import Process
from optuna_llmbo.errors import InputError
from tests.command.processes import begin
from tests.command.processes import is_alive
from tests.command.processes import wait_until


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

STUBBORN = """
import json, os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = [sys.executable, "-S", "-c", "import signal, time; signal.signal(15, 1); time.sleep(600)"]
pids = [subprocess.Popen(child, start_new_session=own).pid for own in (False, True)]
pids.append(os.getpid())
time.sleep(0.5)  # until they ignore it
with open("new", "w") as file:
    json.dump(pids, file)
os.rename("new", "processes")
EXTRA
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*words: str, grace: float = 0.2, stop: tuple[str, ...] = ()) -> Process:
    return Process(words, os.environ, Path("log"), grace, stop, end_file=Path("ended.json"))


def stubborn(extra: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", STUBBORN.replace("EXTRA", extra))


def processes() -> list[int]:
    wait_until(Path("processes").exists)
    found: list[int] = json.loads(Path("processes").read_text())
    return found


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", -9), ("kill -6 $$", -6)]
)
def test_how_a_command_ends(script: str, code: int) -> None:
    process = run("sh", "-c", f"echo out; echo err >&2; {script}")
    wait_until(lambda: process.wait(1.0))
    assert process.exit == process.stop() == Exit(code, False, ())
    assert Path("log").read_text() == "out\nerr\n"
    told = {"code": code, "stopped": False, "left": []}
    assert json.loads(Path("ended.json").read_text()) == told


def test_a_command_that_does_as_it_is_asked() -> None:
    process = run("sh", "-c", "trap 'echo bye; exit 5' TERM; echo up; sleep 600 & wait", grace=60)
    wait_until(lambda: "up" in Path("log").read_text())
    assert not process.wait(0.0)
    assert process.stop() == Exit(5, True, ())
    assert Path("log").read_text() == "up\nbye\n"


@pytest.mark.long
def test_a_command_that_does_not_is_killed_with_all_that_it_started() -> None:
    process = run(*stubborn("time.sleep(600)"))
    there = processes()
    assert len(there) == 3 and all(map(is_alive, there))
    assert process.stop() == Exit(-signal.SIGKILL, True, ())
    assert not any(map(is_alive, there))


@pytest.mark.long
def test_what_a_command_leaves_behind_ends_with_it() -> None:
    process = run(*stubborn(""))
    there = processes()
    wait_until(lambda: process.wait(1.0))
    assert process.exit == Exit(0, False, ())
    assert not any(map(is_alive, there))


@pytest.mark.long
def test_a_search_that_is_killed_leaves_nothing() -> None:
    """Neither the command nor what it started, nor what stands between."""
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from optuna_llmbo.command.process import Process\n"
        f"process = Process({stubborn('time.sleep(600)')!r}, os.environ, Path('log'), 0.2)\n"
        "Path('launcher').write_text(str(process._launcher.pid))\nprocess.wait(600.0)\n"
    )
    search = begin(code=code)
    there = processes()
    wait_until(lambda: Path("launcher").exists() and Path("launcher").read_text())
    there.append(int(Path("launcher").read_text()))
    assert all(map(is_alive, there))
    search.kill()
    search.wait()
    wait_until(lambda: not any(map(is_alive, there)))


def test_a_launcher_that_is_killed_takes_the_command_with_it() -> None:
    process = run("sleep", "600")
    assert process._pid is not None and is_alive(process._pid)
    process._launcher.kill()
    wait_until(lambda: process.wait(1.0))
    assert process.exit == Exit(-signal.SIGKILL, False, ())
    wait_until(lambda: process._pid is not None and not is_alive(process._pid))


def test_the_stop_command_runs_when_a_command_is_to_stop() -> None:
    process = run("sleep", "600", grace=60, stop=("sh", "-c", "sleep 0.1; echo stopped"))
    process.stop()
    assert Path("log").read_text() == "stopped\n"
    ended = run("true", stop=("sh", "-c", "echo again"))
    wait_until(lambda: ended.wait(1.0))
    assert Path("log").read_text() == "stopped\n"


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(InputError, match="'no-such-program' cannot be started .No such file"):
        run("no-such-program")
    Path("data").write_text("")
    with pytest.raises(InputError, match="Permission denied"):
        run("./data")


def test_signals_are_as_programs_expect_them() -> None:
    """Python itself ignores a pipe that nobody reads, and the launcher more; commands do not."""
    process = run("sh", "-c", "grep SigIgn /proc/self/status")
    wait_until(lambda: process.wait(1.0))
    ignored = int(Path("log").read_text().split()[1], 16)
    assert ignored & sum(1 << (n - 1) for n in (1, 2, 13, 15, 17)) == 0


@pytest.mark.parametrize(
    ("code", "text", "kind", "reason"),
    [
        (
            1,
            "x\ntorch.OutOfMemoryError: CUDA out of memory. Tried\nmore",
            "infeasible",
            "torch.Out",
        ),
        (
            1,
            "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate",
            "infeasible",
            "RuntimeE",
        ),
        (-9, "", "infeasible", "killed by SIGKILL"),
        (137, "Killed", "infeasible", "killed by SIGKILL"),
        (1, "a\nValueError: no data\n", "failed", "exit code 1: ValueError: no data"),
        (2, "", "failed", "exit code 2, without output"),
        (-11, "x", "failed", "ended by SIGSEGV: x"),
        (139, "x", "failed", "ended by SIGSEGV: x"),
        (1, " 10%|#  \r 20%|## \rdone\n", "failed", "exit code 1: done"),
    ],
)
def test_what_an_end_means(code: int, text: str, kind: str, reason: str) -> None:
    Path("log").write_text(text)
    ending = ending_of(Exit(code, False, ()), Path("log"))
    assert ending is not None and ending.kind == kind and reason in ending.reason


def test_an_end_without_fault() -> None:
    Path("log").write_text("a smaller batch, as CUDA out of memory\n")
    assert ending_of(Exit(0, False, ()), Path("log")) is None


def test_the_end_of_a_log() -> None:
    Path("log").write_bytes(b"1%\r2%\n" + b"x" * 3000 + b"\nlast \xc3\xa9\r\n")
    assert log_end(Path("log"), 20) == "x" * 10 + "\nlast é"
    assert log_end(Path("log"), 10_000).startswith("2%\n")
    assert log_end(Path("none")) == ""


def test_with_many_open_files() -> None:
    """The descriptors of a process with much to do are larger than `select` takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2000:
        pytest.skip("this system allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1200)]
    try:
        process = run("sleep", "600")
        assert not process.wait(0.01)
        assert process.stop() == Exit(-15, True, ())
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
