"""The storage that an option names: opened to write or to read, and shown without its password."""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
import random
import time
import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage
from optuna.storages import JournalStorage
from optuna.storages import RDBStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal import JournalRedisBackend
from sqlalchemy.engine import make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import ProgrammingError

from optuna_llmbo.errors import InputError
from optuna_llmbo.study import compat


MAX_RETRIES = 3
"""Maximum retries of a trial whose process died, as the trial itself may be the cause."""
_JOURNALS = (".log", ".journal")
_DATABASES = (".db", ".sqlite", ".sqlite3")
_EXPECTED = (
    "Expected a database URL such as sqlite:///lora.db or postgresql://user@host/name, "
    "redis://host, a journal's file such as lora.log, or an SQLite file such as lora.db."
)
_ATTEMPTS = 5
"""Workers that start on a new database at once get in each other's way as its tables are made."""


def open_storage(named: str, heartbeat: int) -> BaseStorage:
    """Open a storage, which is made if it is not there, with heartbeats.

    Args:
        named: a database URL, a redis URL, or the path of a journal or of an SQLite database.
        heartbeat: seconds between heartbeats; trials silent for two of them are retried.

    Raises:
        InputError: if it is none of these, or cannot be opened.
    """

    def opened() -> BaseStorage:
        backend = _journal(named)
        if backend is not None:
            return compat.JournalWithHeartbeat(backend, heartbeat, max_retry=MAX_RETRIES)
        return compat.storage_with_heartbeat(_url(named), heartbeat, max_retry=MAX_RETRIES)

    return _tried(named, opened, attempts=_ATTEMPTS)


def read_storage(named: str) -> BaseStorage:
    """Open a storage to read, which has to be there; nothing is created.

    Raises:
        InputError: if there is none, or it cannot be opened.
    """
    file = _file(named)
    if file is not None and not file.exists():
        raise InputError(
            f"there is no storage {shown(named)!r}: the file {file} does not exist. "
            "`optuna-llmbo tune` makes it; check --storage."
        )

    def opened() -> BaseStorage:
        backend = _journal(named)
        if backend is not None:
            return JournalStorage(backend)
        return RDBStorage(_url(named), skip_table_creation=True)

    return _tried(named, opened)


def shown(named: str) -> str:
    """A storage's name without the password in it."""
    try:
        return make_url(named).render_as_string(hide_password=True)
    except ArgumentError:
        return named


def _journal(named: str) -> BaseJournalBackend | None:
    """The journal that is named, or None for a database."""
    if named.startswith(("redis://", "rediss://")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return JournalRedisBackend(named)
    if "://" not in named and Path(named).suffix in _JOURNALS:
        return JournalFileBackend(str(Path(named).expanduser()))
    return None


def _url(named: str) -> str:
    """The URL of a database.

    Raises:
        InputError: if it is none.
    """
    if "://" in named:
        return named
    if Path(named).suffix in _DATABASES:
        return URL.create("sqlite", database=str(Path(named).expanduser())).render_as_string()
    raise InputError(f"cannot open the storage {named!r}. {_EXPECTED}")


def _file(named: str) -> Path | None:
    """The file that holds a storage, or None if it is on a server or in memory."""
    if "://" not in named:
        return Path(named).expanduser()
    try:
        url = make_url(named)
    except ArgumentError:
        return None
    is_path = url.get_backend_name() == "sqlite" and "uri" not in url.query
    return Path(url.database) if is_path and url.database not in (None, "", ":memory:") else None


def _tried(named: str, opened: Callable[[], BaseStorage], attempts: int = 1) -> BaseStorage:
    for left in range(attempts - 1, -1, -1):
        try:
            return opened()
        except InputError:
            raise
        except Exception as error:  # each storage has its own: SQLAlchemy's, a driver's, a file's
            if left and _of_database(error) is not None:
                time.sleep(random.uniform(0.1, 1.0))
                continue
            raise _not_opened(named, error) from error
    raise AssertionError("the last attempt returns or raises")


def _of_database(error: Exception) -> DBAPIError | None:
    """The database's own error, which Optuna wraps."""
    return next((e for e in (error, error.__cause__) if isinstance(e, DBAPIError)), None)


def _not_opened(named: str, error: Exception) -> InputError:
    own = _of_database(error)
    if isinstance(own, (OperationalError, ProgrammingError)) and "version_info" in str(own):
        return InputError(
            f"there is no study in the storage {shown(named)!r}: it has none of Optuna's tables."
        )
    if isinstance(error, (KeyError, json.JSONDecodeError)):
        return InputError(f"cannot open the storage {named!r}: it is no journal of Optuna's.")
    cause = own or error
    told = next(iter(str(cause).splitlines()), "").replace(named, shown(named)).rstrip(".")
    return InputError(
        f"cannot open the storage {shown(named)!r}: {type(cause).__name__}: {told}. {_EXPECTED}"
    )
