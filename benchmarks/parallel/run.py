"""Run studies with 1, 2, 4 and 8 worker processes, on a temporary PostgreSQL server.

    python -m benchmarks.parallel.run
    python -m benchmarks.parallel.run --methods ours-numeric --workers 1,8 --seeds 2 --budget 60
    python -m benchmarks.parallel.run --training 2 --seeds 3

One study runs at a time, and nothing else should, as the workers share the cores. With --training,
each trial also sleeps, as if it trained on a device of its own. A finished study is stored at once
and not run again without --again; one that failed is stored with its error and retried by the next
call.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import json
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

from benchmarks import console
from benchmarks import parquet
from benchmarks import postgres
from benchmarks.parallel import results
from benchmarks.parallel import study
from benchmarks.parallel.study import Plan
from benchmarks.race import methods
from benchmarks.race import tasks
from benchmarks.race.run import provenance
from optuna_llmbo.errors import InputError


TASKS = "lora-10,bbob-rosenbrock-5d"


def plan(
    method_names: Sequence[str],
    task_names: Sequence[str],
    *,
    workers: Sequence[int],
    seeds: Sequence[int],
    budget: int,
    training: float,
) -> list[Plan]:
    """Plan all studies in the order in which they run: all of a seed before the next.

    Raises:
        InputError: if there is no such method.
    """
    for method in method_names:
        methods.check(method)
    return [
        Plan(task=task, method=method, workers=n, seed=seed, budget=budget, training=training)
        for seed in seeds
        for task in task_names
        for method in method_names
        for n in workers
    ]


def missing(plans: Sequence[Plan], rows: Iterable[Mapping[str, Any]]) -> list[Plan]:
    """Return the plans without a successful study of that budget."""
    done = {results.key_of(row): row["budget"] for row in rows if row["error"] is None}
    return [one for one in plans if done.get(one.key) != one.budget]


def run(plans: Sequence[Plan], table: Path) -> int:
    """Run studies and store them; return how many failed."""
    about = provenance() | {"cores": len(os.sched_getaffinity(0)), "postgresql": _version()}
    about["versions"] = json.dumps(about["versions"])
    n_failed = 0
    with postgres.cluster() as cluster:
        for done, one in enumerate(plans, 1):
            record = study.run(one, cluster.url)
            results.add(table, record | about)
            n_failed += record["error"] is not None
            last = record["error"].splitlines()[-1] if record["error"] else ""
            outcome = f"FAILED {last}" if last else f"{record['ends'][-1]:.1f} s"
            print(
                f"[{done}/{len(plans)}] {one.task} {one.method} seed {one.seed}, {one.workers} "
                f"workers: {outcome}",
                file=sys.stderr,
            )
    return n_failed


def _version() -> str:
    folder = postgres.binaries()
    assert folder is not None
    command = [str(folder / "postgres"), "--version"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", type=console.names, default=["ours-numeric", "gp", "tpe"])
    parser.add_argument("--tasks", default=TASKS, help="names, families, tuning, reported, all")
    parser.add_argument("--workers", type=console.names, default=["1", "2", "4", "8"])
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--budget", type=int, default=200, help="trials per study")
    parser.add_argument("--training", type=float, default=0.0, help="seconds of sleep per trial")
    parser.add_argument("--again", action="store_true", help="also run finished studies again")
    parser.add_argument("--table", type=Path, default=results.TABLE)
    arguments = parser.parse_args()
    try:
        plans = plan(
            arguments.methods,
            tasks.choose(arguments.tasks),
            workers=[int(n) for n in arguments.workers],
            seeds=range(arguments.first_seed, arguments.first_seed + arguments.seeds),
            budget=arguments.budget,
            training=arguments.training,
        )
        todo = plans if arguments.again else missing(plans, parquet.rows_of(arguments.table))
        print(f"{len(plans)} studies, {len(todo)} to run", file=sys.stderr)
        n_failed = run(todo, arguments.table) if todo else 0
    except InputError as error:
        parser.error(str(error))
    if n_failed:
        sys.exit(f"{n_failed} studies failed; their errors are in the table")


if __name__ == "__main__":
    main()
