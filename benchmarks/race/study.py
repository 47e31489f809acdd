"""Run one study of the race (task, method, start, seed) and record its trials."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
from dataclasses import dataclass
import hashlib
import logging
import logging.handlers
import math
import queue
import sys
import time
import traceback
from typing import Any
import warnings

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from benchmarks.race import tasks
from benchmarks.race.methods import make_sampler
from benchmarks.race.task import Task
from benchmarks.race.task import TrialFailed
from optuna_llmbo.study.trial_attributes import EXPECTED_MEAN
from optuna_llmbo.study.trial_attributes import EXPECTED_STANDARD_DEVIATION as EXPECTED_DEVIATION


STARTS = ("plain", "default")
"""Starts: the sampler's own first trial, or the task's default as trial 0."""

MAX_WARNINGS = 5
LONG = 40
"""Characters of a choice that a record does not repeat."""


@dataclass(frozen=True)
class Plan:
    """A study to run."""

    task: str
    method: str
    start: str
    seed: int
    budget: int
    """Trials."""

    @property
    def key(self) -> tuple[str, str, str, int]:
        """Identity of the study, without the budget, as longer runs include shorter ones."""
        return (self.task, self.method, self.start, self.seed)


def run(plan: Plan) -> dict[str, Any]:
    """Run a study in memory, without pruning.

    Returns:
        The plan's fields; `values` in the order of the trials, nan for those that failed;
        `seconds` that each took, besides computing its value; `surprises`, how many standard
        deviations each value lay above what was expected of it, nan where nothing was;
        `best_params`, None if no trial succeeded, with digests of long texts, which are not ours
        to keep; `warnings` of Optuna and of the sampler; `total_seconds`; `error`, the traceback
        if the study failed, with the trials until then.
    """
    begun = time.perf_counter()
    one_thread()
    values: list[float] = []
    seconds: list[float] = []
    surprises: list[float] = []
    record: dict[str, Any] = {**vars(plan), "values": values, "seconds": seconds}
    record["surprises"] = surprises
    record |= {"best_params": None, "error": None}
    with _warnings() as messages:
        try:
            task = tasks.load(plan.task)
            study = _create(plan, task)
            for _ in range(plan.budget):
                value, spent = _one_trial(study, task)
                values.append(value)
                seconds.append(round(spent, 5))
            surprises += [_surprise(trial) for trial in study.get_trials(deepcopy=False)]
        except Exception:  # any failure of a sampler is a result of the race
            record["error"] = traceback.format_exc()
    if not all(map(math.isnan, values)):
        record["best_params"] = brief(study.best_params)
    total = round(time.perf_counter() - begun, 2)
    return record | {"warnings": messages, "total_seconds": total}


def brief(params: Mapping[str, Any]) -> dict[str, Any]:
    """Replace long texts by the start of their SHA-256, which finds them in a table again."""
    return {name: _digest(value) if _is_long(value) else value for name, value in params.items()}


def _is_long(value: Any) -> bool:
    return isinstance(value, str) and len(value) > LONG


def _digest(text: str) -> str:
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def one_thread() -> None:
    """Limit torch to one thread, if it is loaded."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _surprise(trial: FrozenTrial) -> float:
    """How far our sampler's expectation was off, in its standard deviations."""
    mean, deviation = (trial.user_attrs.get(name) for name in (EXPECTED_MEAN, EXPECTED_DEVIATION))
    if mean is None or deviation is None or trial.state != TrialState.COMPLETE:
        return math.nan
    assert trial.value is not None
    return round((trial.value - mean) / max(deviation, sys.float_info.min), 4)


def _create(plan: Plan, task: Task) -> optuna.Study:
    study = optuna.create_study(
        sampler=make_sampler(plan.method, task, plan.seed), pruner=optuna.pruners.NopPruner()
    )
    if plan.start == "default":
        study.enqueue_trial(dict(task.default))
    return study


def _one_trial(study: optuna.Study, task: Task) -> tuple[float, float]:
    """Run a trial; return its value and the seconds it took besides computing the value.

    The value is nan if the trial fails: Optuna is told so, or the nan itself if the task returns
    it, as `study.optimize` would.
    """
    begun = time.perf_counter()
    trial = study.ask(dict(task.distributions) if task.distributions is not None else None)
    configuration = task.suggest(trial)
    asked = time.perf_counter()
    try:
        value, state = task.value(configuration), None
    except TrialFailed:
        value, state = math.nan, TrialState.FAIL
    known = time.perf_counter()
    if state is None and not (math.isfinite(value) or (task.may_be_nan and math.isnan(value))):
        raise ValueError(f"{task.name} is {value} at {configuration}: expected a finite value.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The value nan is not acceptable")
        study.tell(trial, value if state is None else None, state=state)
    return value, asked - begun + time.perf_counter() - known


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect the first distinct warnings of Optuna's loggers in a list, filled at the end."""
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    handler = logging.handlers.QueueHandler(records)
    handler.setLevel(logging.WARNING)
    logger = logging.getLogger("optuna")
    logger.addHandler(handler)
    messages: list[str] = []
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        given = (records.get().getMessage() for _ in range(records.qsize()))
        messages += list(dict.fromkeys(given))[:MAX_WARNINGS]
