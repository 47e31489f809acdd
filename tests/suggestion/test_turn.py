"""Workers that choose at the same moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
import threading
from typing import Any

import optuna
import pytest

from optuna_llmbo import LLMBOSampler


N_WORKERS = 8


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_workers_that_choose_at_once_choose_differently(seed: int) -> None:
    """Of few configurations, where all of them would take the same one, and then the next."""
    study = optuna.create_study(
        sampler=LLMBOSampler(kernel="numeric", n_startup_trials=4, seed=seed)
    )

    def suggest(trial: optuna.Trial) -> tuple[int, int]:
        return trial.suggest_int("x", 0, 7), trial.suggest_int("y", 0, 7)

    for _ in range(5):
        trial = study.ask()
        x, y = suggest(trial)
        study.tell(trial, x + y**2)
    together = threading.Barrier(N_WORKERS)

    def work(_: Any) -> tuple[int, int]:
        together.wait()
        return suggest(study.ask())

    with ThreadPoolExecutor(N_WORKERS) as workers:
        chosen = list(workers.map(work, range(N_WORKERS)))
    assert len(set(chosen)) == N_WORKERS


Params = dict[str, Any]


def suggest_all(trial: optuna.Trial) -> Params:
    trial.suggest_float("x", -5, 5)
    trial.suggest_categorical("c", ["a", "b"])
    trial.suggest_int("y", 0, 10)
    return trial.params


@pytest.fixture
def begun() -> tuple[optuna.Study, optuna.Trial]:
    """A study whose first trial has begun when no parameter was known, and has suggested none,
    while the second completed."""
    study = optuna.create_study(sampler=LLMBOSampler(kernel="numeric", n_startup_trials=4, seed=0))
    first, second = study.ask(), study.ask()
    assert first.relative_params == {}
    suggest_all(second)
    study.tell(second, 1.0)
    return study, first


MIDDLE = {"x": 0.0, "y": 5}


def test_what_the_first_trial_begins_no_other_tries(
    begun: tuple[optuna.Study, optuna.Trial],
) -> None:
    study, first = begun
    first.suggest_float("x", -5, 5)
    other = suggest_all(study.ask())
    mine = suggest_all(first)
    assert mine.items() >= MIDDLE.items()
    assert not other.items() >= MIDDLE.items()
    assert not suggest_all(study.ask()).items() >= MIDDLE.items()


@pytest.mark.parametrize("n", [0, 1])
def test_the_first_trial_steps_aside(n: int, begun: tuple[optuna.Study, optuna.Trial]) -> None:
    """Another one has taken what it would try before it suggested anything: nobody could know."""
    study, first = begun
    other = suggest_all(study.ask())
    assert other.items() >= MIDDLE.items()
    for _ in range(n):
        first.suggest_float("x", -5, 5)
    mine = suggest_all(first)
    assert mine["x"] != 0.0


def test_without_others_the_first_trial_is_the_middle() -> None:
    study = optuna.create_study(sampler=LLMBOSampler(kernel="numeric", seed=0))
    assert suggest_all(study.ask()).items() >= MIDDLE.items()
