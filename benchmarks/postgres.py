"""Run a temporary PostgreSQL cluster in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import os
from pathlib import Path
import pwd
import shutil
import socket
import subprocess
import tempfile
from typing import Any

from optuna_llmbo.errors import InputError


NAME = "optuna"
"""Name of the user and of the database."""

# Nothing has to outlive the cluster's folder, so commits need not reach the disk.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "100",
}

# Waits until its input closes, which happens however the parent process ends.
_STOP_AT_END = """
read -r line
"$0/pg_ctl" --pgdata="$1/data" --mode=immediate --wait stop
rm -rf "$1"
"""


class Cluster:
    """A running cluster; see `cluster`."""

    def __init__(self, binaries: Path, folder: Path, port: int, owner: Mapping[str, Any]) -> None:
        self._binaries, self._folder, self._port, self._owner = binaries, folder, port, owner

    @property
    def url(self) -> str:
        """URL for `optuna.storages.RDBStorage`, with the driver psycopg."""
        return f"postgresql+psycopg://{NAME}@127.0.0.1:{self._port}/{NAME}"

    def create_(self) -> None:
        """Create the cluster and its database, in place, and start it."""
        initdb = ("initdb", "--auth=trust", f"--username={NAME}", "--encoding=UTF8", "--no-locale")
        self._run(*initdb, "--no-sync", f"--pgdata={self._data}")
        lines = [f"{name} = {value}\n" for name, value in SETTINGS.items()]
        lines += [
            f"port = {self._port}\n",
            "listen_addresses = '127.0.0.1'\n",
            f"unix_socket_directories = '{self._folder}'\n",
        ]
        with open(self._data / "postgresql.conf", "a") as file:
            file.writelines(lines)
        self._control("start")
        self._run(
            "createdb", "--host=127.0.0.1", f"--port={self._port}", f"--username={NAME}", NAME
        )

    def restart(self) -> None:
        """Stop the cluster, which ends all connections, and start it again."""
        self._control("--mode=fast", "restart")

    def stop(self) -> None:
        """Stop the cluster, which ends all connections."""
        self._control("--mode=fast", "stop")

    def start(self) -> None:
        """Start the cluster again."""
        self._control("start")

    def guard(self) -> subprocess.Popen[bytes]:
        """Start a process that ends the cluster when its input closes or this process dies."""
        command = ["sh", "-c", _STOP_AT_END, str(self._binaries), str(self._folder)]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # keyboard interrupts must not reach it
            cwd=self._folder,
            **self._owner,
        )

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _control(self, *arguments: str) -> None:
        log = self._folder / "log"
        self._run("pg_ctl", f"--pgdata={self._data}", f"--log={log}", "--wait", *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._binaries / program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self._folder,
            **self._owner,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}")


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Run a cluster that is stopped and removed at the end, even if this process is killed.

    PostgreSQL refuses to run as root; it then runs as the user postgres, or else nobody.

    Raises:
        InputError: if PostgreSQL is not installed.
    """
    programs = binaries()
    if programs is None:
        raise InputError(
            "PostgreSQL is not installed: install it, on Debian with `apt-get install postgresql`."
        )
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path must be short
    try:
        owner = _owner_(folder) if os.geteuid() == 0 else {}
        made = Cluster(programs, folder, free_port(), owner)
        guard = made.guard()
        try:
            made.create_()
            yield made
        finally:
            guard.communicate()  # closes its input
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def binaries() -> Path | None:
    """Find the server's programs on the path, or the newest where Debian installs them."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    installed = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(installed, key=lambda path: float(path.parts[-3]), default=None)
    return newest.parent if newest is not None else None


def free_port() -> int:
    """Find a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _owner_(folder: Path) -> dict[str, Any]:
    """Change the folder's owner, in place; return options to run a process as that owner."""
    users = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = users["postgres" if "postgres" in users else "nobody"]
    shutil.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
