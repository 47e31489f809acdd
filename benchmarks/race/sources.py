"""Earlier studies on tasks that are like another, by the name of that task."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import functools

import numpy as np

from benchmarks.race import hpobench
from benchmarks.race import real
from benchmarks.race import real_nmt
from benchmarks.race import tasks
from benchmarks.race.real_rows import Rows
from benchmarks.race.task import draw
from optuna_llmbo.errors import InputError


N_DRAWN = 40
"""Number of trials in an earlier study on a task that is no table, uniformly random."""

Read = Callable[[], Mapping[str, Rows]]
"""Reads the trials of earlier studies, by the study's name."""


def read(name: str) -> Mapping[str, Rows]:
    """Read the earlier studies of a task.

    Raises:
        InputError: if there are none.
    """
    if name not in SOURCES:
        raise InputError(
            f"{name} has no similar task: choose one of HPOBench's, lora-10, lora-100, "
            "real-transfer-tuning or real-transfer-reported."
        )
    return SOURCES[name]()


def _drawn(name: str) -> dict[str, Rows]:
    """Make a study of random trials on a task."""
    task = tasks.load(name)
    assert task.distributions is not None
    configurations = draw(task.distributions, N_DRAWN, seed=0)
    values = np.array([task.value(configuration) for configuration in configurations])
    return {name: Rows(task.distributions, configurations, values)}


def _smaller_llama(metric: str) -> dict[str, Rows]:
    return {"Llama-3.2-1B": real.llama_rows("1b", metric)}


def _hpobench(name: str) -> str:
    return "hpobench-car-grid" if name.endswith("-grid") else "hpobench-car"


SOURCES: dict[str, Read] = {
    **{name: functools.partial(_drawn, _hpobench(name)) for name in hpobench.tasks()},
    "lora-10": functools.partial(_drawn, "lora-100"),
    "lora-100": functools.partial(_drawn, "lora-10"),
    **real_nmt.transfer_sources(),
    **{
        f"real-llama-3b-{metric}": functools.partial(_smaller_llama, metric)
        for metric in real.LLAMA_METRICS
    },
}
"""Reads the earlier studies of each task; HPOBench's is of `car`, which is not reported."""
