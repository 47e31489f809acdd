"""Programs that misbehave, with namespaces where the system permits them, and without."""

from __future__ import annotations

import functools
import os
from pathlib import Path
import re
import secrets
import socket
import threading
import time
from typing import Any

import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.metrics import sandbox
from optuna_llmbo.lora.metrics.sandbox import Limits
from optuna_llmbo.lora.metrics.sandbox import ProgramResult
from optuna_llmbo.lora.metrics.sandbox import run_isolated
from optuna_llmbo.lora.metrics.sandbox_launcher import landlock_version


pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX processes only")

ENOUGH = Limits(seconds=60)  # a busy machine may take seconds to start an interpreter


@functools.cache
def permitted() -> bool:
    """Whether this system lets its users make namespaces."""
    return run_isolated("import os; assert os.getpid() == 1", "", ENOUGH).passed


@pytest.fixture(params=[True, False], ids=["namespaces", "without"])
def namespaces(request: pytest.FixtureRequest) -> bool:
    if request.param and not permitted():
        pytest.skip("the system permits no namespaces")
    return bool(request.param)


def running(marker: str) -> list[str]:
    """Processes with a text in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if marker in text:
            found.append(text)
    return found


def test_passes_and_fails(namespaces: bool) -> None:
    program = "def double(x):\n    return 2 * x"
    run = functools.partial(run_isolated, limits=ENOUGH, namespaces=namespaces)
    assert run(program, "assert double(2) == 4") == ProgramResult(True, "passed")
    assert run(program, "assert double(2) == 5, 'five'") == ProgramResult(
        False, "AssertionError: five"
    )
    assert run(program, "triple(2)").reason == "NameError: name 'triple' is not defined"
    assert run("def double(", "").reason.startswith("SyntaxError")


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "raise SystemExit",
        "raise KeyboardInterrupt",
        "import os\nif os.fork(): os._exit(0)",
        "import os; os.kill(os.getpid(), 9); raise ValueError",
        "import os; os.kill(0, 9); raise ValueError",
        "import os\nfor i in range(99):\n  try: os.write(i, b'1')\n  except OSError: 0\nexit(0)",
        "class E(Exception):\n  def __str__(self): raise E\nraise E",
    ],
)
def test_leaving_before_the_tests_is_no_pass(program: str, namespaces: bool) -> None:
    outcome = run_isolated(program, "", Limits(seconds=3), namespaces=namespaces)
    assert not outcome.passed and outcome.reason != "passed"


@pytest.mark.parametrize("program", ["while True: pass", "import time; time.sleep(60)"])
def test_an_endless_loop(program: str, namespaces: bool) -> None:
    started = time.monotonic()
    outcome = run_isolated(program, "", Limits(seconds=1), namespaces=namespaces)
    assert outcome == ProgramResult(False, "timeout")
    assert 1 <= time.monotonic() - started < 1 + sandbox._GRACE


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
@pytest.mark.parametrize("ends", ["", "import time; time.sleep(60)"], ids=["early", "late"])
def test_children_do_not_outlive_it(namespaces: bool, ends: str) -> None:
    marker = f"sandboxed{secrets.token_hex(8)}"
    program = f"""
import subprocess, sys
children = [
    subprocess.Popen(
        [sys.executable, "-c", "import os, time; os.fork(); time.sleep(60)", {marker!r}],
        start_new_session=True,  # out of reach of a signal to the group
    )
    for _ in range(3)
]
import time; time.sleep(0.5)
import os
assert children[0].poll() is None
{ends}
"""
    if os.geteuid() and not namespaces:
        pytest.skip("without namespaces, only root can start processes")
    limits = Limits(seconds=3 if ends else 60)
    outcome = run_isolated(program, "", limits, namespaces=namespaces)
    assert outcome.passed == (not ends), outcome
    assert running(marker) == []


def test_more_processes_than_allowed(namespaces: bool) -> None:
    if os.geteuid() == 0:
        pytest.skip("root is exempt from the limit")
    program = "import os, time\nfor _ in range(40):\n  if os.fork() == 0: time.sleep(60)"
    outcome = run_isolated(program, "", Limits(seconds=10), namespaces=namespaces)
    assert outcome.reason.startswith("BlockingIOError")


def test_too_much_memory(namespaces: bool) -> None:
    limits = Limits(seconds=60, memory_bytes=2**28)
    hog = "x = bytearray({})"
    assert run_isolated(hog.format(2**26), "", limits, namespaces=namespaces).passed
    outcome = run_isolated(hog.format(2**28), "", limits, namespaces=namespaces)
    assert outcome == ProgramResult(False, "MemoryError: ")


def test_a_big_file(namespaces: bool) -> None:
    limits = Limits(seconds=60, file_bytes=2**20)
    write = "with open('file', 'wb') as f: f.write(bytes({}))"
    assert run_isolated(write.format(2**19), "", limits, namespaces=namespaces).passed
    outcome = run_isolated(write.format(2**21), "", limits, namespaces=namespaces)
    assert outcome.reason.startswith("OSError")


def test_many_files(namespaces: bool) -> None:
    limits = Limits(seconds=60, file_bytes=2**20, open_files=20)
    several = "for i in range(8):\n  with open(str(i), 'wb') as f: f.write(bytes(2**18))"
    assert run_isolated(several, "", limits, namespaces=namespaces).passed == (not namespaces)
    opened = run_isolated("files = [open('/dev/null') for _ in range(30)]", "", limits)
    assert opened.reason.startswith("OSError: [Errno 24]")


def test_writing_elsewhere(tmp_path: Path, namespaces: bool) -> None:
    if not namespaces and landlock_version() < 3:
        pytest.skip("the system has no Landlock")
    kept = tmp_path / "kept"
    kept.write_text("mine")
    for program in (
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"open({str(kept)!r}, 'w')",
        f"open({str(kept)!r}, 'a')",
        f"import os; os.truncate({str(kept)!r}, 0)",
        f"import os; os.remove({str(kept)!r})",
        f"import os; os.rename({str(kept)!r}, 'stolen')",
        f"import os; os.link({str(kept)!r}, 'linked')",
        "open('/dev/shm/sandboxed', 'w')",
    ):
        reason = run_isolated(program, "", ENOUGH, namespaces=namespaces).reason
        assert re.search("Read-only|Permission denied|cross-device", reason), (program, reason)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["kept"]
    assert kept.read_text() == "mine"


def test_writing_into_its_folder(namespaces: bool) -> None:
    program = """
import os
os.makedirs("a/b")
with open("a/b/c", "w") as file: file.write("text")
os.rename("a/b/c", "d")
assert open("d").read() == "text"
os.truncate("d", 0)
os.remove("d")
os.removedirs("a/b")
"""
    outcome = run_isolated(program, "", ENOUGH, namespaces=namespaces)
    assert outcome == ProgramResult(True, "passed")


def test_signals_to_its_group(namespaces: bool) -> None:
    """The launcher is not in it, and still ends the program in time."""
    program = "import os, signal, time\nsignal.signal(15, signal.SIG_IGN)\nos.kill(0, 15)"
    program += "\ntime.sleep(0.5)"
    assert run_isolated(program, "", ENOUGH, namespaces=namespaces) == ProgramResult(
        True, "passed"
    )


def test_signals_to_others() -> None:
    """The launcher, which is to end the program in time, among them."""
    if landlock_version() < 6:
        pytest.skip("the system has no Landlock that handles signals")
    program = "import os; os.kill(os.getppid(), 9)"
    outcome = run_isolated(program, "", ENOUGH, namespaces=False)
    assert outcome.reason.startswith("PermissionError")


def test_walls_cannot_be_taken_down_again() -> None:
    if not permitted():
        pytest.skip("the system permits no namespaces")
    program = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mount(None, b"/", None, ctypes.c_ulong(32 | 4096), None) == -1  # remount, bind
assert ctypes.get_errno() == 1
assert libc.umount2(os.getcwd().encode(), 2) == -1
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status"))
assert int(status["CapEff"], 16) == 0 and status["NoNewPrivs"].strip() == "1"
"""
    assert run_isolated(program, "", ENOUGH) == ProgramResult(True, "passed")


def test_no_network(namespaces: bool) -> None:
    if not namespaces and landlock_version() < 4:
        pytest.skip("the system has no Landlock that handles TCP")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with socket.create_connection(address, timeout=5):
            pass
        program = f"import socket; socket.create_connection({address!r}, timeout=5)"
        outcome = run_isolated(program, "", ENOUGH, namespaces=namespaces)
    error = "OSError: [Errno 101]" if namespaces else "PermissionError: [Errno 13]"
    assert outcome.reason.startswith(error)


def test_what_it_sees_of_the_user(monkeypatch: pytest.MonkeyPatch, namespaces: bool) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "1234")
    program = """
import os, sys
assert "SECRET_TOKEN" not in os.environ and "HOME" not in os.environ
assert os.listdir() == [] and sys.argv[1:] == [] and sys.flags.isolated
print("unheard"); print("unheard", file=sys.stderr)
assert sys.stdin.read() == ""
input()
"""
    outcome = run_isolated(program, "", ENOUGH, namespaces=namespaces)
    assert outcome == ProgramResult(False, "EOFError: EOF when reading a line")
    loud = "import sys\nfor _ in range(10**5): print('x' * 100); print('x', file=sys.stderr)"
    assert run_isolated(loud, "", ENOUGH, namespaces=namespaces).passed


def test_a_module_as_programs_expect_it() -> None:
    program = """
from dataclasses import dataclass
import pickle

@dataclass
class Point:
    x: "int"

assert pickle.loads(pickle.dumps(Point(3))) == Point(3)
if __name__ == "__main__":
    raise ValueError("the main block is for scripts")
"""
    assert run_isolated(program, "assert Point(1).x == 1", ENOUGH).passed


def test_the_folder_is_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program = "import os; os.makedirs('a/b'); open('a/b/c', 'w'); os.chmod('a', 0o500)"
    assert run_isolated(program, "", ENOUGH, namespaces=False).passed
    assert list(tmp_path.iterdir()) == []


def test_threads_at_once() -> None:
    """No two runs share a pipe or a token; open ends stay as many as they were."""
    before = len(os.listdir("/dev/fd"))
    outcomes: dict[int, ProgramResult] = {}

    def run(i: int) -> None:
        outcomes[i] = run_isolated("", f"assert {i} % 2 == 0", ENOUGH)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcomes[i].passed for i in range(4)] == [True, False, True, False]
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize(
    ("version", "open_to"),
    [
        (0, "the network, other processes, all files that the user can write"),
        (4, "the network but for TCP, other processes"),
        (7, "the network but for TCP"),
    ],
)
def test_what_is_open_is_said_once(
    version: int,
    open_to: str,
    monkeypatch: pytest.MonkeyPatch,
    warnings_logged: list[str],
    tmp_path: Path,
) -> None:
    """On kernels with other versions of Landlock, and none."""
    if landlock_version() < version:
        pytest.skip("the system's Landlock is older")
    for name in ("sandbox_launcher.py", "sandbox_harness.py"):
        text = Path(sandbox.__file__).with_name(name).read_text()
        older = text.replace("version = landlock_version()", f"version = {version}")
        assert (older != text) == (name == "sandbox_launcher.py")
        (tmp_path / name).write_text(older)
    monkeypatch.setattr(sandbox, "_FOLDER", tmp_path)
    for _ in range(2):
        assert run_isolated("open('file', 'w')", "", ENOUGH, namespaces=False).passed
    (warning,) = warnings_logged
    assert f"can reach {open_to}, for lack of namespaces" in warning


def test_nothing_to_warn_of(warnings_logged: list[str]) -> None:
    if not permitted():
        pytest.skip("the system permits no namespaces")
    assert run_isolated("", "", ENOUGH).passed
    assert warnings_logged == []


def test_a_sandbox_that_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sandbox, "_FOLDER", tmp_path)
    with pytest.raises(InputError, match="did not start: .*sandbox_launcher.py"):
        run_isolated("", "", ENOUGH)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seconds": 0}, "seconds must be a number above 0; got 0"),
        ({"seconds": float("inf")}, "seconds must be a number above 0; got inf"),
        ({"memory_bytes": 1.5}, "memory_bytes must be an integer of at least 1"),
        ({"processes": 0}, "processes must be an integer of at least 1"),
    ],
)
def test_impossible_limits(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Limits(**changes)
