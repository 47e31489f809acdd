"""Race on learning curves: runs are watched at every checkpoint, and a pruner may end them.

Runs of LoRA for translation are looked up with their curves (`real_nmt`), so a study takes
seconds. Its cost is counted in checkpoints trained, and it ends after as many as 30 average runs
have; a run that fails costs one. What a search has found is the best checkpoint it has trained so
far, of a pruned run as well. Pruners decide from a quarter of an average run on: that is where
`optuna-llmbo tune` first reports.

    python -m benchmarks.race.curves                                # what is missing, 10 minutes
    python -m benchmarks.race.curves --methods ours --again         # after a change
    python -m benchmarks.race.curves --report                       # the tables

A finished study is appended to a file at once, and not run again. Several processes may run
different methods.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import math
from pathlib import Path
import sys
import time
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.trial import TrialState

from benchmarks import console
from benchmarks.race import journal
from benchmarks.race import methods
from benchmarks.race import real_nmt
from benchmarks.race import statistics
from benchmarks.race import tasks
from benchmarks.race.run import provenance
from benchmarks.race.study import one_thread
from benchmarks.race.task import TrialFailed
from optuna_llmbo.errors import InputError


RESULTS = journal.RESULTS / "curves.jsonl"
METHODS = ("ours", "gp", "tpe", "random")
PRUNERS: dict[str, Callable[[int, int], BasePruner]] = {
    "none": lambda first, last: optuna.pruners.NopPruner(),
    "median": lambda first, last: optuna.pruners.MedianPruner(n_warmup_steps=first),
    "hyperband": lambda first, last: optuna.pruners.HyperbandPruner(
        min_resource=first, max_resource=last
    ),
}
"""Optuna's pruners by name, made from the first and the last checkpoint at which they decide."""

TASKS = {
    f"real-nmt-{pair}-{metric}": (pair, metric)
    for pair in real_nmt.PAIRS
    for metric in real_nmt.METRICS
}
N_SEEDS = 5
AT_RUNS = (10, 20, 30)
"""After how many average runs' checkpoints methods are compared; studies end at the last."""


@dataclass(frozen=True)
class Plan:
    """A study to run."""

    task: str
    method: str
    pruner: str
    seed: int


@dataclass
class Spent:
    """What a study has trained so far."""

    budget: int
    """Checkpoints that may be trained."""
    checkpoints: int
    improvements: list[tuple[int, float]]
    """The number of checkpoints trained when the best one improved, and its value."""

    def train(self, value: float) -> None:
        """Count a checkpoint; nan if the run failed."""
        self.checkpoints += 1
        if not math.isnan(value) and (not self.improvements or value < self.improvements[-1][1]):
            self.improvements.append((self.checkpoints, value))

    @property
    def is_over(self) -> bool:
        """Whether the budget is spent."""
        return self.checkpoints >= self.budget


def run(plan: Plan) -> dict[str, Any]:
    """Run a study.

    Returns:
        The plan's fields; `budget` in checkpoints; `improvements`, see `Spent`; the numbers of
        trials that ended in each way, of which the last may not have; `seconds`.
    """
    begun = time.perf_counter()
    one_thread()
    pair, metric = TASKS[plan.task]
    task, look_up = tasks.load(plan.task), real_nmt.learning_curves(pair, metric)
    study = optuna.create_study(
        study_name=f"{plan.task}-{plan.seed}",  # Hyperband draws a trial's bracket from it
        sampler=methods.make_sampler(plan.method, task, plan.seed),
        pruner=PRUNERS[plan.pruner](round(real_nmt.mean_length(pair) / 4), real_nmt.longest(pair)),
    )
    spent = Spent(budget_of(plan.task, AT_RUNS[-1]), 0, [])
    while not spent.is_over:
        trial = study.ask(dict(task.distributions or {}))
        try:
            curve = look_up(task.suggest(trial))
        except TrialFailed:
            spent.train(math.nan)
            study.tell(trial, state=TrialState.FAIL)
            continue
        _train(study, trial, curve, spent)
    ended = {state.name.lower(): 0 for state in TrialState if state != TrialState.WAITING}
    for one in study.trials:
        ended[one.state.name.lower()] += 1
    return {
        **vars(plan),
        "budget": spent.budget,
        "improvements": spent.improvements,
        "trials": ended,
        "seconds": round(time.perf_counter() - begun, 2),
    }


def _train(study: optuna.Study, trial: optuna.Trial, curve: Sequence[float], spent: Spent) -> None:
    """Follow a run to its end, until it is pruned, or until the budget is spent."""
    for step, value in enumerate(curve, 1):
        spent.train(value)
        trial.report(value, step)
        if step == len(curve):
            study.tell(trial, min(curve))
        elif trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return
        if spent.is_over:
            return


def budget_of(task: str, n_runs: int) -> int:
    """Return the number of checkpoints of so many average runs."""
    pair, _ = TASKS[task]
    return round(n_runs * real_nmt.mean_length(pair))


def plans(
    task_names: Iterable[str],
    method_names: Iterable[str],
    pruner_names: Iterable[str],
    seeds: Iterable[int],
) -> list[Plan]:
    """Plan all studies; all of a seed come before the next seed.

    Raises:
        InputError: if there is no such task, method or pruner.
    """
    for names, known, what in (
        (task_names, TASKS, "task"),
        (method_names, methods.METHODS, "method"),
        (pruner_names, PRUNERS, "pruner"),
    ):
        for name in names:
            if name not in known:
                raise InputError(f"unknown {what} {name!r}: expected one of {', '.join(known)}.")
    return [
        Plan(task, method, pruner, seed)
        for seed in seeds
        for task in task_names
        for method in method_names
        for pruner in pruner_names
    ]


def key_of(record: Mapping[str, Any]) -> Plan:
    """Return the plan of a record."""
    return Plan(record["task"], record["method"], record["pruner"], record["seed"])


def best_at(record: Mapping[str, Any], n_checkpoints: int) -> float:
    """Return the best value among the first checkpoints; inf if none of them has one."""
    known = (value for at, value in record["improvements"] if at <= n_checkpoints)
    return min(known, default=math.inf)


def regrets(
    records: Mapping[Plan, Mapping[str, Any]], columns: Sequence[tuple[str, str]], n_runs: int
) -> list[np.ndarray]:
    """Return for each task the regret after so many average runs, (seeds, columns).

    A seed counts if all columns have it.

    Args:
        records: the studies.
        columns: the method and the pruner of each column.
        n_runs: after how many average runs' checkpoints.

    Raises:
        InputError: if a task has no seed that all columns have.
    """
    groups = []
    for name in dict.fromkeys(plan.task for plan in records):
        task, at = tasks.load(name), budget_of(name, n_runs)
        seeds = sorted({plan.seed for plan in records if plan.task == name})
        wanted = [[Plan(name, *column, seed) for column in columns] for seed in seeds]
        rows = [
            [task.regret(best_at(records[plan], at)) for plan in row]
            for row in wanted
            if all(plan in records for plan in row)
        ]
        if not rows:
            raise InputError(f"{name} has no seed with all of {list(columns)}: run them first.")
        groups.append(np.array(rows))
    return groups


def report(records: Mapping[Plan, Mapping[str, Any]]) -> str:
    """Format ranks of the methods under each pruner, and the regret of each combination."""
    names = [name for name in METHODS if any(plan.method == name for plan in records)]
    at = [f"{n} runs" for n in AT_RUNS]
    parts = []
    for pruner in PRUNERS:
        columns = [(method, pruner) for method in names]
        estimates = [
            statistics.mean_over_tasks([statistics.ranks(g) for g in regrets(records, columns, n)])
            for n in AT_RUNS
        ]
        rows = [
            [name, *(f"{e.value:.2f} ({e.low:.2f} to {e.high:.2f})" for e in line)]
            for name, line in zip(names, zip(*estimates, strict=True), strict=True)
        ]
        parts.append(console.table([f"rank, pruner: {pruner}", *at], rows))
    columns = [(method, pruner) for method in names for pruner in PRUNERS]
    means = [statistics.mean_over_tasks(regrets(records, columns, n)) for n in AT_RUNS]
    rows = [
        [*column, *(f"{e.value:.3f} ({e.low:.3f} to {e.high:.3f})" for e in line)]
        + [_mean_count(records, column, "complete"), _mean_count(records, column, "pruned")]
        for column, line in zip(columns, zip(*means, strict=True), strict=True)
    ]
    head = ["method", "pruner", *(f"regret, {n}" for n in at), "complete", "pruned"]
    return "\n\n".join([*parts, console.table(head, rows)])


def _mean_count(
    records: Mapping[Plan, Mapping[str, Any]], column: tuple[str, str], state: str
) -> str:
    counts = [
        record["trials"][state]
        for plan, record in records.items()
        if (plan.method, plan.pruner) == column
    ]
    return f"{np.mean(counts):.1f}"


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=console.names, default=list(TASKS))
    parser.add_argument("--methods", type=console.names, default=list(METHODS))
    parser.add_argument("--pruners", type=console.names, default=list(PRUNERS))
    parser.add_argument("--seeds", type=int, default=N_SEEDS, help="how many")
    parser.add_argument("--again", action="store_true", help="also run finished studies again")
    parser.add_argument("--report", action="store_true", help="only print the tables")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if not given.report:
            tasks.check(given.tasks)
            chosen = plans(given.tasks, given.methods, given.pruners, range(given.seeds))
            done = set() if given.again else set(_read(given.out))
            _run_all([plan for plan in chosen if plan not in done], given.out)
        print(report(_read(given.out)))
    except InputError as error:
        parser.error(str(error))


def _run_all(todo: Sequence[Plan], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    about = provenance()
    for number, plan in enumerate(todo, 1):
        record = run(plan)
        journal.append_line(path, record | about)
        best = record["improvements"][-1][1]
        print(f"[{number}/{len(todo)}] {plan}: {best}, {record['seconds']} s", file=sys.stderr)


def _read(path: Path) -> dict[Plan, dict[str, Any]]:
    """Read the last record of each study."""
    return {key_of(one): one for one in journal.read_lines(path)} if path.exists() else {}


if __name__ == "__main__":
    main()
