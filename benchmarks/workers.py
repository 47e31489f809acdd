"""Work shared out to processes of one thread each, with what is left of the time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from collections.abc import Hashable
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
from typing import TypeVar
import warnings

import optuna


THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

P = TypeVar("P")
R = TypeVar("R")


def pool(jobs: int) -> ProcessPoolExecutor:
    """Spawned workers that live as long as the pool, so that models and tables load once."""
    os.environ.update(dict.fromkeys(THREADS, "1"))  # read when a worker loads its libraries
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
    """What is planned, as it gets done; says how much was not begun when the time was over.

    Args:
        executor: whose work it is.
        plans: in the order in which they are begun.
        begin: submits one.
        at_once: how many are submitted and not done.
        minutes: none is begun after them; None for no limit.
        what: what they are called, several of them.
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
    left: Counter[Hashable], spent: Mapping[Hashable, Sequence[float]], jobs: int
) -> float | None:
    """How long the rest takes, from the mean of each kind, of all for a kind without one.

    Args:
        left: how many of each kind are to be done.
        spent: seconds of those that are done, by kind.
        jobs: processes at once.

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
    """Seconds for a reader: "2 h 5 min", "3 min 20 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _start_worker() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    optuna.logging.disable_default_handler()  # warnings go into the record
    logging.getLogger().addHandler(logging.NullHandler())
    warnings.filterwarnings("ignore")


def _end_with_parent() -> None:
    """A killed race leaves no workers behind."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
