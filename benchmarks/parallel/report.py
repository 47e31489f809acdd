"""Print the results of the parallel studies, as Markdown.

    python -m benchmarks.parallel.report
    python -m benchmarks.parallel.report --at 30,60,200 --training 2

Intervals are 95% bootstrap intervals.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas

from benchmarks import console
from benchmarks.parallel import results
from benchmarks.race.report import about
from benchmarks.race.report import cell
from benchmarks.race.scales import of as scale_of
from benchmarks.race.scales import Scale
from benchmarks.race.statistics import best_so_far
from benchmarks.race.statistics import bootstrap
from benchmarks.race.statistics import mean_over_tasks
from optuna_llmbo.errors import InputError


def report(table: pandas.DataFrame, at: Sequence[int], scales: Mapping[str, Scale]) -> str:
    """Format all sections.

    Args:
        table: studies with one length of training.
        at: numbers of trials after which regret is shown.
        scales: scale of each task.
    """
    known = table[table["error"].isna()]
    regrets = regret(known, at, scales)
    sections = [
        ("Studies", studies(table)),
        ("Speed", speed(known)),
        ("Regret", by_workers(regrets)),
        ("Against one worker", against_one(regrets)),
    ]
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in sections if text)


def studies(table: pandas.DataFrame) -> str:
    """Report how many studies there are, and how many failed."""
    failed = table[table["error"].notna()]
    lines = [
        f"- {row.task} {row.method}, {row.workers} workers, seed {row.seed}: "
        f"{row.error.splitlines()[-1]}"
        for row in failed.itertuples()
    ]
    cores = ", ".join(map(str, sorted(table["cores"].unique())))
    return "\n".join([f"{len(table)} studies on {cores} cores, {len(failed)} failed.", *lines])


def speed(table: pandas.DataFrame) -> str:
    """Report trials a minute, and how long a worker waits for the sampler and the database."""
    rows = []
    minutes = table["ends"].map(lambda ends: ends[-1] / 60)
    known = table.assign(
        rate=table["values"].map(len) / minutes,
        suggestion=table["suggestion_seconds"].map(np.mean),
    )
    for method, of_method in known.groupby("method", sort=False):
        alone = of_method[of_method["workers"] == 1]["rate"].median()
        for n, some in of_method.groupby("workers"):
            rate = some["rate"].median()
            rows.append(
                [
                    str(method),
                    str(n),
                    f"{rate:.0f}",
                    f"{rate / alone:.2f}" if alone > 0 else "-",
                    f"{some['suggestion'].mean():.3f}",
                    f"{some['duplicates'].sum():.0f} of {some['values'].map(len).sum()}",
                ]
            )
    head = ["method", "workers", "trials a minute", "times one worker's", "sampler", "duplicates"]
    return (
        "Trials a minute: median over studies. Sampler: mean seconds that a worker spends in a "
        "trial besides its value, in the sampler and the database. Duplicates: trials with the "
        "parameters of an earlier one.\n\n" + console.table(head, rows)
    )


def regret(
    table: pandas.DataFrame, at: Sequence[int], scales: Mapping[str, Scale]
) -> pandas.DataFrame:
    """Make a row per study and number of trials: task, method, workers, seed, trials, regret.

    Trials count in the order in which they ended; shorter studies are left out.
    """
    rows = [
        {
            **{name: getattr(row, name) for name in ("task", "method", "workers", "seed")},
            "trials": n,
            "regret": float(scales[row.task].regret(best_so_far(row.values_, n)[-1])),
        }
        for row in table.rename(columns={"values": "values_"}).itertuples()
        for n in at
        if len(row.values_) >= n
    ]
    return pandas.DataFrame(
        rows, columns=["task", "method", "workers", "seed", "trials", "regret"]
    )


def by_workers(regrets: pandas.DataFrame) -> str:
    """Report the median regret over the seeds, one column per number of workers."""
    counts = sorted(regrets["workers"].unique())
    rows = []
    for (task, method, n), some in regrets.groupby(["task", "method", "trials"], sort=False):
        of_count = {count: part["regret"].to_numpy() for count, part in some.groupby("workers")}
        cells = [
            cell(bootstrap(of_count[count]) if count in of_count else None, ".3g")
            for count in counts
        ]
        rows.append([str(task), str(method), str(n), *cells])
    head = ["task", "method", "trials", *(f"{count} workers" for count in counts)]
    return (
        "Median over seeds after so many trials of all workers together; 0 is the best value of "
        "a task, 1 that of the median random configuration.\n\n" + console.table(head, rows)
    )


def against_one(regrets: pandas.DataFrame) -> str:
    """Report what is lost by choosing before the other workers' results are known."""
    counts = [count for count in sorted(regrets["workers"].unique()) if count != 1]
    rows = []
    for (method, n), some in regrets.groupby(["method", "trials"], sort=False):
        wide = some.pivot(index=["task", "seed"], columns="workers", values="regret")
        if 1 not in wide:
            continue
        cells = []
        for count in counts:
            loss = (wide[count] - wide[1]).dropna() if count in wide else pandas.Series()
            groups = [part.to_numpy()[:, None] for _, part in loss.groupby(level=0)]
            cells.append(cell(mean_over_tasks(groups)[0] if groups else None, "+.3g"))
        rows.append([str(method), str(n), *cells])
    if not rows or not counts:
        return ""
    head = ["method", "trials", *(f"{count} workers" for count in counts)]
    return (
        "Regret minus that of one worker with the same seed after as many trials, mean over "
        "seeds, then tasks; both are resampled. Above 0 is worse.\n\n" + console.table(head, rows)
    )


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--at", type=console.names, default=["30", "60", "200"], help="trials")
    parser.add_argument("--training", type=float, default=0.0, help="seconds of sleep per trial")
    parser.add_argument("--table", type=Path, default=results.TABLE)
    arguments = parser.parse_args()
    try:
        table = results.read(arguments.table)
    except InputError as error:
        parser.error(str(error))
    table = table[table["training"] == arguments.training]
    if table.empty:
        parser.error(f"there is no study with --training {arguments.training:g}.")
    scales = {name: scale_of(name) for name in table["task"].unique()}
    print(report(table, [int(n) for n in arguments.at], scales))
    print("\n" + about(table))


if __name__ == "__main__":
    main()
