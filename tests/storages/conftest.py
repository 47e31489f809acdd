"""Storages that a study may lie in: real databases and servers, started when a test wants one."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
import subprocess
import sys

from optuna.storages import BaseStorage
from optuna.storages import GrpcStorageProxy
from optuna.storages import InMemoryStorage
from optuna.storages import JournalStorage
from optuna.storages import RDBStorage
from optuna.storages.journal import JournalFileBackend
import pytest

from benchmarks import postgres


MakeStorage = Callable[[], BaseStorage]

STORAGES = ("memory", "sqlite", "journal", "postgresql", "grpc")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[postgres.Cluster]:
    """A running PostgreSQL, one for each process of tests."""
    if postgres.binaries() is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres.cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def grpc_port(postgresql: postgres.Cluster) -> Iterator[int]:
    """Where a gRPC proxy listens that stands before the PostgreSQL."""
    port = postgres.free_port()
    command = [sys.executable, "-m", "tests.storages.proxy", postgresql.url, str(port)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        GrpcStorageProxy(port=port).wait_server_ready(timeout=120)
        yield port
    finally:
        server.communicate()  # closes its input, and so ends it


@pytest.fixture(params=STORAGES)
def make_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStorage]:
    """Opens a storage; another call opens the same one as another process would."""
    opened: list[BaseStorage] = []
    connect = _connector(request, tmp_path)

    def make() -> BaseStorage:
        opened.append(connect())
        return opened[-1]

    yield make
    for storage in opened:
        if isinstance(storage, RDBStorage):
            storage.engine.dispose()
        elif isinstance(storage, GrpcStorageProxy):
            storage.close()


@pytest.fixture
def storage(make_storage: MakeStorage) -> BaseStorage:
    """A storage, opened once."""
    return make_storage()


@pytest.fixture
def study_name(request: pytest.FixtureRequest) -> str:
    """Of the test's study: tests share a database."""
    return str(request.node.nodeid)


def _connector(request: pytest.FixtureRequest, folder: Path) -> MakeStorage:
    if request.param == "memory":
        only = InMemoryStorage()  # there is no other way to it than the object
        return lambda: only
    if request.param == "sqlite":
        return lambda: RDBStorage(f"sqlite:///{folder}/study.db")
    if request.param == "journal":
        return lambda: JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql").url
        return lambda: RDBStorage(url)
    port = request.getfixturevalue("grpc_port")
    return lambda: GrpcStorageProxy(port=port)
