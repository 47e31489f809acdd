"""A suggestion changes nothing that the user's program sees, and is the same in any program."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextlib import contextmanager
import importlib
from pathlib import Path
import random
import threading
import traceback
from typing import Any
import warnings

import numpy as np
import optuna
import pytest
import torch

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.suggestion import engine
from optuna_llmbo.suggestion import fitted
from optuna_llmbo.suggestion import known
from optuna_llmbo.suggestion import meaning
from optuna_llmbo.suggestion.decide import decide
from optuna_llmbo.surrogate import choice_view
from optuna_llmbo.surrogate import likelihood
from optuna_llmbo.surrogate import text_view
from optuna_llmbo.surrogate.acquisition import make_mixed_scorer
from optuna_llmbo.surrogate.choice_view import fit_token


pytestmark = pytest.mark.usefixtures("small_pool")

Make = Callable[[], LLMBOSampler]


@pytest.fixture(params=["numeric", "choices", "sum"])
def make(request: pytest.FixtureRequest, tiny_llm: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a sampler whose model chooses from the fourth trial on, and trains its token."""
    monkeypatch.setattr(meaning, "FIRST_TRAINED", 3)
    monkeypatch.setattr(choice_view, "_FEWEST_OBSERVED", 3)
    options: dict[str, Any] = {"n_startup_trials": 3, "n_candidates": 8, "seed": 0}
    options["llm"] = None if request.param == "numeric" else tiny_llm
    options["kernel"] = "sum" if request.param == "sum" else "numeric"
    return lambda: LLMBOSampler(**options)


def one(trial: optuna.Trial) -> float:
    """One objective that fails now and then, with a constraint."""
    x = trial.suggest_float("x", 0, 1)
    kind = trial.suggest_categorical("kind", ["a", "b", "c"])
    trial.set_user_attr("over", x - 0.9)
    if trial.number == 2:
        raise optuna.TrialPruned
    return (x - 0.3) ** 2 + "abc".index(kind)


def two(trial: optuna.Trial) -> tuple[float, float]:
    """Two objectives."""
    x, y = (trial.suggest_float(name, 0, 1) for name in "xy")
    return x**2 + y, (x - 1) ** 2 + y


def params(make: Make) -> list[dict[str, Any]]:
    """What is tried in studies of both objectives, one of them beside a running trial."""
    single = optuna.create_study(sampler=make())
    single.optimize(one, n_trials=4)
    single.ask()
    single.optimize(one, n_trials=1)
    several = optuna.create_study(sampler=make(), directions=["minimize", "minimize"])
    several.optimize(two, n_trials=4)
    assert {"model"} <= {t.user_attrs.get("llmbo:path") for t in single.trials}
    return [trial.params for study in (single, several) for trial in study.trials]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "another device": default_device,
    "warnings are errors": lambda: warnings.catch_warnings(action="error", category=UserWarning),
}


@pytest.mark.parametrize("mode", MODES)
def test_it_is_the_same_under_any_mode(mode: str, make: Make) -> None:
    expected = params(make)
    with MODES[mode]():
        assert params(make) == expected


def test_it_neither_reads_nor_changes_random_numbers_and_settings(make: Make) -> None:
    torch.manual_seed(1)
    before = _state()
    first = params(make)
    assert _state() == before
    torch.manual_seed(2)
    np.random.seed(2)
    random.seed(2)
    assert params(make) == first


def test_another_thread_sees_nothing_of_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it computes with, a thread that begins in the middle of it finds as it was."""
    seen: list[dict[str, Any]] = []
    expected = _in_a_new_thread()
    sampler = make()
    study = optuna.create_study(sampler=sampler)
    study.optimize(one, n_trials=4)  # its own thread has begun

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def watching(*args: Any, **kwargs: Any) -> Any:
            seen.append(_in_a_new_thread())
            return function(*args, **kwargs)

        return watching

    monkeypatch.setattr(engine, "decide", watched(decide))
    monkeypatch.setattr(likelihood, "cholesky", watched(likelihood.cholesky))
    monkeypatch.setattr(fitted, "make_mixed_scorer", watched(make_mixed_scorer))
    monkeypatch.setattr(text_view, "_penalty", watched(text_view._penalty))
    monkeypatch.setattr(known, "fit_token", watched(fit_token))
    study.optimize(one, n_trials=1)
    assert len(seen) > 10
    assert all(state == expected for state in seen)


@pytest.mark.parametrize(
    "setter",
    [
        "torch.set_default_dtype",
        "torch.set_default_device",
        "torch.set_num_threads",
        "torch.manual_seed",
        "torch.random.fork_rng",
        "torch.set_rng_state",
        "numpy.random.seed",
        "random.seed",
        "warnings.catch_warnings",
        "warnings.simplefilter",
        "warnings.filterwarnings",
        "transformers.utils.logging.set_verbosity",
    ],
)
def test_it_calls_nothing_that_sets_what_all_threads_share(
    setter: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = optuna.create_study(sampler=make())
    study.optimize(one, n_trials=4)  # its own thread has begun

    module, _, name = setter.rpartition(".")
    original = getattr(importlib.import_module(module), name)
    calls: list[str] = []

    def noted(*args: Any, **kwargs: Any) -> Any:
        stack = traceback.extract_stack()
        if any("optuna_llmbo/" in frame.filename for frame in stack):
            calls.append("".join(traceback.format_list(stack[-4:])))
        return original(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(setter, noted)
        trial = study.ask()
        one(trial)
    assert not calls
    assert study.trials[-1].user_attrs["llmbo:path"] == "model"


def _in_a_new_thread() -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: found.append(_state()))
    thread.start()
    thread.join()
    return found[0]


def _state() -> dict[str, Any]:
    """What a program may have set, and sees."""
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),
        "python": random.getstate(),
        "filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
    }
