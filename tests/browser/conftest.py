"""A headless chromium, and what a page that it shows has done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.browser import headless


ROOT = Path(__file__).parents[2]


@dataclass
class Watched:
    """A page, and what it said and asked for."""

    page: Any
    errors: list[str] = field(default_factory=list)
    """Errors of the console and exceptions."""
    requests: list[str] = field(default_factory=list)
    """Addresses that are not the page itself or part of it."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's chromium under playwright; the tests are skipped where one of them is missing."""
    pytest.importorskip("playwright.sync_api")
    path = headless.executable()
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(headless.NAMES)} is installed")
    with headless.chromium(path) as browser:
        yield browser


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where pictures of what was tested are left: OPTUNA_LLMBO_SCREENSHOTS, or a folder here."""
    folder = Path(os.environ.get("OPTUNA_LLMBO_SCREENSHOTS", ROOT / ".pytest-artifacts"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def watch(context: Any) -> Watched:
    """A new page of a browser's context."""
    watched = Watched(context.new_page())
    page = watched.page

    def on_console(message: Any) -> None:
        if message.type == "error":
            watched.errors.append(f"{message.text} {message.location}")

    def on_request(request: Any) -> None:
        if urlsplit(request.url).scheme not in ("data", "blob", "file"):
            watched.requests.append(request.url)

    page.on("console", on_console)
    page.on("pageerror", lambda error: watched.errors.append(str(error)))
    page.on("request", on_request)
    return watched
