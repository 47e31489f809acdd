"""Trials of one objective that run at once, each in a thread."""

from __future__ import annotations

from collections.abc import Sequence
import queue
import threading
from typing import Any
from typing import Protocol

import optuna
from optuna.trial import FrozenTrial

from optuna_llmbo.cli.search import Begin
from optuna_llmbo.cli.search import Callback
from optuna_llmbo.cli.search import run_trial
from optuna_llmbo.cli.search import Watch


class Cancellable(Protocol):
    """An objective whose trials run in threads."""

    def choose(self, trial: optuna.Trial) -> object:
        """Have the sampler choose the parameters of a trial."""

    def cancel(self) -> None:
        """Stop all running trials, which then raise KeyboardInterrupt."""

    def __call__(self, trial: optuna.Trial) -> float | tuple[float, ...]:
        """Run a trial."""


class Together:
    """Runs trials at once until there is none to begin, as `search.run_trials` does one by one.

    Trials begin and choose their parameters one after the other, each with its own sampler.

    Args:
        objective: what is run.
        n: most trials at once.
    """

    def __init__(self, objective: Cancellable, n: int) -> None:
        self._objective = objective
        self._n = n

    def __call__(self, study: optuna.Study, begin: Begin, callbacks: Sequence[Callback]) -> None:
        """Run trials; the first error that is not a trial's own stops all of them."""
        workers = _Workers(study, self._objective, begin, [*callbacks, Watch()])
        threads = [threading.Thread(target=workers.work, daemon=True) for _ in range(self._n)]
        for thread in threads:
            thread.start()
        try:
            error = workers.wait(self._n)
        except KeyboardInterrupt as interrupt:
            error = interrupt
        if error is not None:
            self._objective.cancel()
        for thread in threads:
            thread.join()
        if error is not None:
            raise error


class _Workers:
    def __init__(
        self,
        study: optuna.Study,
        objective: Cancellable,
        begin: Begin,
        callbacks: Sequence[Callback],
    ) -> None:
        self._study = study
        self._objective = objective
        self._begin = begin
        self._callbacks = callbacks
        self._choosing = threading.Lock()
        self._telling = threading.Lock()
        self._ended: queue.Queue[BaseException | None] = queue.Queue()
        self._stop = threading.Event()

    def wait(self, n: int) -> BaseException | None:
        """Wait until n workers have ended; the first error, which stops the others."""
        for _ in range(n):
            error = self._ended.get()
            if error is not None:
                self._stop.set()
                return error
        return None

    def work(self) -> None:
        """Run one trial after the other."""
        try:
            while not self._stop.is_set() and (ended := self._next()) is not None:
                with self._telling:
                    for callback in self._callbacks:
                        callback(self._study, ended)
        except BaseException as error:
            self._ended.put(error)
        else:
            self._ended.put(None)

    def _next(self) -> FrozenTrial | None:
        turn = _Turn(self._choosing)
        try:
            trial = None if self._stop.is_set() else self._begin()
            if trial is None:
                return None

            def objective(trial: optuna.Trial) -> Any:
                self._objective.choose(trial)
                turn.end()
                return self._objective(trial)

            return run_trial(self._study, objective, trial)
        finally:
            turn.end()


class _Turn:
    """A lock that is held until it is given up the first time."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock: threading.Lock | None = lock
        lock.acquire()

    def end(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
