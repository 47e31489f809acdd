"""A gRPC proxy before a database, until its input ends.

python -m tests.storages.proxy URL PORT
"""

from __future__ import annotations

import os
import sys
import threading

from optuna.storages import get_storage
from optuna.storages import RDBStorage
from optuna.storages import run_grpc_proxy_server


def main() -> None:
    """Serve."""
    url, port = sys.argv[1:]
    threading.Thread(target=_end_with_input, daemon=True).start()
    storage = RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    run_grpc_proxy_server(get_storage(storage), host="localhost", port=int(port))


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
