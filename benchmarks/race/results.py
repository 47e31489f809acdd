"""Select and arrange the table of results for the report."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas

from benchmarks.race.scales import of as scale_of
from benchmarks.race.scales import Scale
from benchmarks.race.statistics import best_so_far
from optuna_llmbo.errors import InputError


@dataclass(frozen=True)
class Results:
    """The studies of some methods on some tasks, with one kind of start.

    A study that failed counts with the best value it had reached; one that failed before its first
    value is only listed.
    """

    methods: tuple[str, ...]
    """Methods in display order; the first is compared with the others."""
    tasks: tuple[str, ...]
    scales: Mapping[str, Scale]
    curves: pandas.DataFrame
    """One row per study: task, method, seed, budget, best (budget,), seconds (k,), surprises (k,)
    or None."""
    failed: pandas.DataFrame
    """One row per failed study: task, method, seed, error, values."""

    def at(self, n_trials: int) -> pandas.DataFrame:
        """Best value after `n_trials`: one row per task and seed, one column per method."""
        long = self.curves[self.curves["budget"] >= n_trials]
        values = [curve[n_trials - 1] for curve in long["best"]]
        wide = long.assign(value=values).pivot(
            index=["task", "seed"], columns="method", values="value"
        )
        return wide.reindex(columns=list(self.methods))

    def by_task(self, wide: pandas.DataFrame) -> dict[str, np.ndarray]:
        """Split by task, (seeds, methods), into the seeds for which all columns have a value."""
        known = wide.dropna()
        present = known.index.get_level_values("task")
        return {task: known.loc[task].to_numpy() for task in self.tasks if task in present}

    def of(self, task: str, method: str) -> pandas.DataFrame:
        """Select the studies of a task and method, by seed."""
        rows = self.curves
        return rows[(rows["task"] == task) & (rows["method"] == method)].sort_values("seed")


def select(
    table: pandas.DataFrame,
    *,
    methods: Sequence[str],
    task_names: Sequence[str],
    start: str,
    scales: Mapping[str, Scale] | None = None,
) -> Results:
    """Select the studies to report.

    Args:
        table: as returned by `collect.read`.
        methods: the first is compared with the others.
        task_names: tasks to report; those without a study are left out.
        start: plain or default.
        scales: scale of each task; default: loaded from the tasks.

    Raises:
        InputError: if a method has no study of these tasks.
    """
    rows = table[(table["start"] == start) & table["task"].isin(task_names)]
    rows = rows[rows["method"].isin(methods)]
    lacking = [method for method in methods if method not in set(rows["method"])]
    if lacking:
        raise InputError(
            f"there is no study of {', '.join(lacking)} with start {start!r} on these tasks: run "
            "`python -m benchmarks.race.run`, then `python -m benchmarks.race.collect`."
        )
    present = tuple(name for name in task_names if name in set(rows["task"]))
    known = rows[rows["values"].map(len) > 0]
    pairs = zip(known["values"], known["budget"], strict=True)
    known = known.assign(best=[best_so_far(values, budget) for values, budget in pairs])
    return Results(
        methods=tuple(methods),
        tasks=present,
        scales=scales or {name: scale_of(name) for name in present},
        curves=known[["task", "method", "seed", "budget", "best", "seconds", "surprises"]],
        failed=rows.loc[rows["error"].notna(), ["task", "method", "seed", "error", "values"]],
    )
