"""A script: set walls and limits, start the harness behind them, and end everything in time.

It knows the standard library only, and has a process to itself because walls are set from inside:
nothing runs between fork and exec of the process that trains, which has threads.
See `sandbox.run_isolated`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
from pathlib import Path
import resource
import signal
import struct
import sys
import time
import traceback
from typing import Any


# of <linux/sched.h>, <sys/mount.h>, <linux/mount.h>, <linux/prctl.h> and <linux/landlock.h>
_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWUSER = 0x00020000, 0x08000000, 0x10000000
_CLONE_NEWPID, _CLONE_NEWNET = 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x4000, 1 << 18
_SYS_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38
_SYS_CREATE_RULESET, _SYS_ADD_RULE, _SYS_RESTRICT_SELF = 444, 445, 446
_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
_CHANGE = sum(1 << bit for bit in range(4, 14)) | _WRITE_FILE | _TRUNCATE  # all but read and run
_TCP = 1 << 0 | 1 << 1  # bind and connect
_SCOPES = 1 << 0 | 1 << 1  # abstract sockets and signals
# the first versions of Landlock that handle truncation, and these two
_FILES_FROM, _TCP_FROM, _SCOPES_FROM = 3, 4, 6

_NOBODY = 65534

_SWEEP_SECONDS = 2.0

_libc = ctypes.CDLL(None, use_errno=True)
_on_linux = sys.platform == "linux"


def main() -> None:
    """Start the harness, wait for it no longer than allowed, and leave nothing behind."""
    settings = json.loads(sys.argv[1])
    walled = settings["namespaces"] and _on_linux and _enter_namespaces()
    if _on_linux:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans become ours, to be ended
    child = os.fork()
    if child == 0:
        _become_harness(settings, walled)

    def end_it(*_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # the first process of a namespace takes all with it

    signal.signal(signal.SIGALRM, end_it)
    signal.setitimer(signal.ITIMER_REAL, settings["seconds"])
    os.waitpid(child, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # whom it has started, and who has not left its group
    if _on_linux:
        _end_descendants()


def _enter_namespaces() -> bool:
    """Of users, mounts, processes, network and IPC, with no more rights outside than before."""
    user, group = os.geteuid(), os.getegid()
    flags = _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWNET | _CLONE_NEWIPC
    if _libc.unshare(flags) != 0:
        return False
    with contextlib.suppress(OSError):  # unmapped works too
        Path("/proc/self/uid_map").write_text(f"{_NOBODY} {user} 1")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"{_NOBODY} {group} 1")
    return True


def _become_harness(settings: dict[str, Any], walled: bool) -> None:
    """Never returns. The rights within the namespaces end with exec, for the user is not 0."""
    try:
        os.setsid()  # its signals to its group do not reach the launcher
        if _on_linux:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        report = {
            "reaches": _build_walls(settings, walled),
            "unlimited": _set_limits(settings),
        }
        os.write(settings["result"], json.dumps(report).encode() + b"\n")
        ends = [str(settings["secret"]), str(settings["result"])]
        os.execv(sys.executable, [sys.executable, "-I", settings["harness"], *ends])
    except Exception:
        traceback.print_exc()  # `run_isolated` reads it
    finally:
        os._exit(1)


def _build_walls(settings: dict[str, Any], walled: bool) -> list[str]:
    """What can still be reached; without namespaces, Landlock keeps out some of it."""
    files_safe = walled and _write_nowhere_but(settings["folder"], settings["file_bytes"])
    version = 0 if files_safe else _restrict_by_landlock(settings["folder"])
    reaches = []
    if not walled:
        reaches.append("the network but for TCP" if version >= _TCP_FROM else "the network")
    if not walled and version < _SCOPES_FROM:
        reaches.append("other processes")
    if not files_safe and version < _FILES_FROM:
        reaches.append("all files that the user can write")
    return reaches


def _write_nowhere_but(folder: str, size: int) -> bool:
    """All mounts become read-only, and the folder an empty file system in memory."""
    attributes = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_RDONLY, 0, 0, 0)
    private = _mount(None, "/", None, _MS_REC | _MS_PRIVATE, None)
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, None)  # may be forbidden
    read_only = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(b"/"),
        ctypes.c_uint(_AT_RECURSIVE),
        attributes,
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )
    own = _mount("tmpfs", folder, "tmpfs", _MS_NOSUID | _MS_NODEV, f"size={size}")
    os.chdir(folder)
    return private and own and read_only == 0


def _mount(
    source: str | None, target: str, kind: str | None, flags: int, data: str | None
) -> bool:
    def text(value: str | None) -> ctypes.c_char_p:
        return ctypes.c_char_p(None if value is None else os.fsencode(value))

    done = _libc.mount(text(source), text(target), text(kind), ctypes.c_ulong(flags), text(data))
    return bool(done == 0)


def landlock_version() -> int:
    """Of the kernel's Landlock; 0 where there is none."""
    if not _on_linux:
        return 0
    nothing = ctypes.c_void_p(None)
    return max(
        0, _libc.syscall(ctypes.c_long(_SYS_CREATE_RULESET), nothing, ctypes.c_size_t(0), 1)
    )


def _restrict_by_landlock(folder: str) -> int:
    """Write into the folder only, and no TCP and no signals to others: as the version has it.

    Returns:
        The version; 0 if nothing is restricted.
    """
    version = landlock_version()
    if version < _FILES_FROM:
        return 0
    handled = [_CHANGE, _TCP * (version >= _TCP_FROM), _SCOPES * (version >= _SCOPES_FROM)]
    attributes = (ctypes.c_uint64 * len(handled))(*handled)
    size = 8 * (1 + (version >= _TCP_FROM) + (version >= _SCOPES_FROM))
    rules = _libc.syscall(
        ctypes.c_long(_SYS_CREATE_RULESET), attributes, ctypes.c_size_t(size), ctypes.c_uint(0)
    )
    if rules < 0:
        return 0
    for path, access in ((folder, _CHANGE), (os.devnull, _WRITE_FILE | _TRUNCATE)):
        place = os.open(path, os.O_PATH)
        beneath = struct.pack("=Qi", access, place)
        _libc.syscall(
            ctypes.c_long(_SYS_ADD_RULE), rules, 1, ctypes.c_char_p(beneath), ctypes.c_uint(0)
        )
        os.close(place)
    done = _libc.syscall(ctypes.c_long(_SYS_RESTRICT_SELF), rules, ctypes.c_uint(0))
    os.close(rules)
    return version if done == 0 else 0


def _set_limits(settings: dict[str, Any]) -> list[str]:
    """Those that the system refuses."""
    limits = {
        "RLIMIT_CORE": 0,
        "RLIMIT_CPU": math.ceil(settings["seconds"]) + 1,
        "RLIMIT_FSIZE": settings["file_bytes"],
        "RLIMIT_NOFILE": settings["open_files"],
        "RLIMIT_NPROC": settings["processes"],
        "RLIMIT_AS": settings["memory_bytes"],
    }
    refused = []
    for name, value in limits.items():
        try:
            kind = getattr(resource, name)
            _, most = resource.getrlimit(kind)
            if most != resource.RLIM_INFINITY:
                value = min(value, most)
            resource.setrlimit(kind, (value, value))
        except (AttributeError, ValueError, OSError):
            refused.append(name)
    return refused


def _end_descendants() -> None:
    """Kill children until there are none; those of the killed become ours."""
    until = time.monotonic() + _SWEEP_SECONDS
    while time.monotonic() < until:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for child in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.005)


def _children() -> list[int]:
    me, found = os.getpid(), []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (name) state parent ...; a name may hold spaces and brackets
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            if parent == me:
                found.append(int(status.parent.name))
    return found


if __name__ == "__main__":
    main()
