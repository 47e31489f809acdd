"""Debian's chromium without a window, and the dashboard that it looks at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import os
import shutil
import threading
from typing import Any
from wsgiref.simple_server import make_server
from wsgiref.simple_server import WSGIRequestHandler

import optuna
import optuna_dashboard


NAMES = ("chromium", "chromium-browser", "google-chrome")


def executable() -> str | None:
    """The path of the browser, or None if none of `NAMES` is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium(path: str) -> Iterator[Any]:
    """A browser of playwright, which brings none of its own."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@contextmanager
def dashboard(study: optuna.Study, store: Any = None) -> Iterator[str]:
    """The address of a study's page, while optuna-dashboard runs in a thread."""
    application = optuna_dashboard.wsgi(study._storage, store)
    server = make_server("127.0.0.1", 0, application, handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/dashboard/studies/{study._study_id}"
    server.shutdown()
    thread.join()
    server.server_close()


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """A line a request is no news."""
