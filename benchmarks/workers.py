"""Share work among processes of one thread each, and estimate the remaining time."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent.futures import Executor
from concurrent.futures import FIRST_COMPLETED
from concurrent.futures import Future
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import wait
import logging
import multiprocessing
import os
import sys
import threading
import time
from typing import Any
from typing import TypeVar
import warnings

import optuna


THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

P = TypeVar("P")
R = TypeVar("R")


def pool(jobs: int) -> ProcessPoolExecutor:
    """Start workers that live as long as the pool, so that models and tables load once."""
    os.environ.update(dict.fromkeys(THREADS, "1"))  # read when workers load their libraries
    return ProcessPoolExecutor(
        jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    )


def results(
    executor: Executor,
    plans: Sequence[P],
    begin: Callable[[P], Future[R]],
    *,
    at_once: int,
    minutes: float | None,
    what: str,
) -> Iterator[R]:
    """Yield results as they finish; report what was not started when the time was over.

    Args:
        executor: pool that does the work.
        plans: the work, in the order in which it starts.
        begin: submits one plan.
        at_once: number of plans submitted and not yet finished.
        minutes: time after which no plan starts; None for no limit.
        what: plural name of the plans, for the message.
    """
    waiting = list(reversed(plans))
    running: set[Future[R]] = set()
    end = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    with executor:
        while waiting or running:
            while waiting and len(running) < at_once and time.monotonic() < end:
                running.add(begin(waiting.pop()))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    if waiting:
        print(f"{len(waiting)} {what} were not begun: the time is over", file=sys.stderr)


def seconds_left(
    left: Mapping[Any, int], spent: Mapping[Any, Sequence[float]], jobs: int
) -> float | None:
    """Estimate the remaining time from the mean of each kind, or of all for a new kind.

    Args:
        left: number of each kind still to do.
        spent: seconds of those that are done, by kind.
        jobs: number of processes.

    Returns:
        Seconds; None if nothing is done yet.
    """
    known = [seconds for some in spent.values() for seconds in some]
    if not known:
        return None
    overall = sum(known) / len(known)
    means = {kind: sum(some) / len(some) for kind, some in spent.items()}
    return sum(n * means.get(kind, overall) for kind, n in left.items()) / jobs


def duration(seconds: float) -> str:
    """Format seconds as "2 h 5 min" or "3 min 20 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _start_worker() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    optuna.logging.disable_default_handler()  # warnings go into the record
    logging.getLogger().addHandler(logging.NullHandler())
    warnings.filterwarnings("ignore")


def _end_with_parent() -> None:
    """End this process with its parent, so that a killed run leaves no workers behind."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
