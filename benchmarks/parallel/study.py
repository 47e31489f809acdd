"""Run one study in several processes that share nothing but a database."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
import multiprocessing
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
import os
import time
import traceback
from typing import Any
import uuid
import warnings

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from benchmarks import workers
from benchmarks.race import methods
from benchmarks.race import tasks
from benchmarks.race.study import one_thread


LOADED = ("torch", "scipy.optimize", "scipy.stats", "optuna_llmbo.sampler")
"""Modules loaded once, before the workers start; the samplers would load them when needed."""

BEGIN_WITHIN = 600.0
"""Seconds within which all workers must be ready."""


@dataclass(frozen=True)
class Plan:
    """A study to run."""

    task: str
    method: str
    workers: int
    seed: int
    budget: int
    """Trials of all workers together."""
    training: float
    """Seconds that a worker sleeps per trial, as if it trained elsewhere."""

    @property
    def key(self) -> tuple[str, str, int, int, float]:
        """Identity of the study: two runs of it have the same key."""
        return (self.task, self.method, self.workers, self.seed, self.training)


def run(plan: Plan, url: str) -> dict[str, Any]:
    """Run a study; the clock starts when all workers are ready.

    Args:
        plan: the study to run.
        url: URL of the database.

    Returns:
        The plan's fields; `values` in the order in which the trials ended; `ends`, when they
        ended, and `suggestion_seconds`, what each took besides computing its value, in the same
        order; `duplicates`, the number of trials with the parameters of an earlier one; `error`,
        the traceback if a worker failed, in which case the other fields are empty.
    """
    record: dict[str, Any] = {**vars(plan), "values": [], "ends": [], "suggestion_seconds": []}
    record |= {"duplicates": None, "error": None}
    name = str(uuid.uuid4())
    try:
        study = optuna.create_study(storage=RDBStorage(url), study_name=name)
        spent = _work_together(plan, url, name)
        return record | _outcome(study.get_trials(deepcopy=False), spent)
    except Exception:  # any failure of a sampler is a result
        return record | {"error": traceback.format_exc()}


def make_sampler(plan: Plan, worker: int) -> BaseSampler:
    """Make a worker's sampler: ours with one seed for all workers, Optuna's with its own."""
    seed = plan.seed if plan.method in methods.OURS else 1000 * plan.seed + worker
    return methods.make_sampler(plan.method, tasks.load(plan.task), seed)


def _work_together(plan: Plan, url: str, name: str) -> dict[int, float]:
    """Work on a study; return, by trial number, the seconds besides computing the value."""
    os.environ.update(dict.fromkeys(workers.THREADS, "1"))  # read when libraries are loaded
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *LOADED])
    begin, taken = context.Barrier(plan.workers), context.Value("i", 0)
    pool = ProcessPoolExecutor(
        plan.workers, mp_context=context, initializer=_start, initargs=(begin, taken)
    )
    with pool:
        futures = [pool.submit(_work, plan, url, name, i) for i in range(plan.workers)]
        return {number: seconds for future in futures for number, seconds in future.result()}


_begin: Barrier
_taken: Synchronized[int]


def _start(begin: Barrier, taken: Synchronized[int]) -> None:
    global _begin, _taken
    _begin, _taken = begin, taken
    optuna.logging.disable_default_handler()
    warnings.filterwarnings("ignore")
    one_thread()


def _work(plan: Plan, url: str, name: str, worker: int) -> list[tuple[int, float]]:
    """Run trials until the workers together have started enough."""
    task = tasks.load(plan.task)
    study = optuna.load_study(
        storage=RDBStorage(url), study_name=name, sampler=make_sampler(plan, worker)
    )
    spent = []
    _begin.wait(BEGIN_WITHIN)  # blocks until all are there, so each process has one worker
    while _take(plan.budget):
        begun = time.perf_counter()
        trial = study.ask(dict(task.distributions) if task.distributions is not None else None)
        configuration = task.suggest(trial)
        asked = time.perf_counter()
        value = task.value(configuration)
        time.sleep(plan.training)
        known = time.perf_counter()
        study.tell(trial, value)
        spent.append((trial.number, asked - begun + time.perf_counter() - known))
    return spent


def _take(budget: int) -> bool:
    with _taken.get_lock():
        _taken.value += 1
        return _taken.value <= budget


def _outcome(trials: list[FrozenTrial], spent: dict[int, float]) -> dict[str, Any]:
    begun = min(trial.datetime_start for trial in trials if trial.datetime_start is not None)
    ended = sorted(
        ((t.datetime_complete - begun).total_seconds(), t.number, t.value, t.params)
        for t in trials
        if t.datetime_complete is not None
    )
    different = {tuple(sorted(params.items())) for _, _, _, params in ended}
    return {
        "values": [value for _, _, value, _ in ended],
        "ends": [seconds for seconds, _, _, _ in ended],
        "suggestion_seconds": [spent[number] for _, number, _, _ in ended],
        "duplicates": len(ended) - len(different),
    }
