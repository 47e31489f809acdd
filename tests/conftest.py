"""Fixtures that all tests share."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import importlib
import logging
import os
from pathlib import Path
import runpy
import signal
import sys

import optuna
import pytest
import torch

from optuna_llmbo.embedding import cache
from optuna_llmbo.errors import warn_once
from optuna_llmbo.suggestion import decide
from tests.tiny import make_tiny_llm


ROOT = Path(__file__).parent.parent

if "PYTEST_XDIST_WORKER" in os.environ:  # one process a core: their threads would be in the way
    torch.set_num_threads(1)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # processes of tests take Ctrl-C


@pytest.fixture(scope="session")
def tiny_llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a two-layer language model with random weights."""
    return make_tiny_llm(tmp_path_factory.mktemp("tiny_llm"))


@pytest.fixture(autouse=True)
def embeddings_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where embeddings are kept in a test: nobody's but its own."""
    folder = tmp_path / "embeddings"
    monkeypatch.setattr(cache, "embeddings_folder", lambda: folder)
    return folder


@pytest.fixture(autouse=True)
def quiet_optuna() -> Iterator[None]:
    """Optuna's line a trial is no news in a test; warnings are."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(verbosity)


@pytest.fixture
def small_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numeric surrogate scores fewer configurations: where it matters that one is chosen, and
    not how good it is."""
    monkeypatch.setattr(decide, "_N_POOL", 64)
    monkeypatch.setattr(decide, "_N_AROUND", 16)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Two-layer models are slower on two threads, and far slower on busy cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs a script with its arguments, as `python SCRIPT` would but in this process, which has
    the imports already, and returns what it printed."""

    def run(script: str, *arguments: str) -> str:
        path = ROOT / script
        monkeypatch.syspath_prepend(path.parent)
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out.strip()

    return run


@pytest.fixture
def warnings_logged() -> Iterator[list[str]]:
    """What goes to Optuna's logger at the level of a warning, while the test runs: all of it, also
    what another test has been told in this process."""
    warn_once.cache_clear()
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("optuna")
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


@pytest.fixture
def model_not_asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown of a study comes without the parts that need a fitted model, which take a
    second each; unless the parameter is False."""
    if getattr(request, "param", True):
        examine = importlib.import_module("optuna_llmbo.insight.examine")
        monkeypatch.setattr(examine, "FEWEST", 10**6)
