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
