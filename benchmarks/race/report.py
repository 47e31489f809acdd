"""Print the results of the race, as Markdown.

    python -m benchmarks.race.report --methods ours,gp,tpe,random
    python -m benchmarks.race.report --methods ours,gp --tasks lora --start default --at 10,30
    python -m benchmarks.race.report --methods ours,gp,tpe --figures benchmarks/results/race

The first method is compared with each of the others. Lower is better throughout; regret is 0 for
the best value of a task and 1 for the median random configuration. Intervals are 95%
bootstrap intervals.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
from pathlib import Path

import numpy as np
import pandas

from benchmarks import console
from benchmarks.race import collect
from benchmarks.race import figures
from benchmarks.race import tasks
from benchmarks.race.results import Results
from benchmarks.race.results import select
from benchmarks.race.statistics import bootstrap
from benchmarks.race.statistics import difference
from benchmarks.race.statistics import Estimate
from benchmarks.race.statistics import mean_over_tasks
from benchmarks.race.statistics import ranks
from benchmarks.race.statistics import signed_rank_test
from benchmarks.race.statistics import trials_to_reach
from benchmarks.race.statistics import verdict
from benchmarks.race.study import STARTS
from benchmarks.race.task import FAMILIES
from optuna_llmbo.errors import InputError


TARGET_TRIALS = 30
"""Trials after which a method's value is the target for the other methods."""
TARGETS = ("random", "tpe")
CALIBRATED = ((7, 10), (11, 15), (16, 20), (21, 30))
"""Trials whose predictions are judged together, the first and the last."""
Z_95 = 1.96
SUGGESTIONS = (10, 30, 60)
"""Trials whose suggestion is timed."""


def report(results: Results, at: Sequence[int]) -> str:
    """Format all sections that have results."""
    sections = [
        ("Studies", studies(results)),
        ("Average rank", average_rank(results, at)),
        ("Paired comparison", paired(results, at)),
        ("Regret", regret(results, at)),
        ("Mean regret", mean_regret(results, at)),
        *((f"Trials to the best of {TARGET_TRIALS} of {m}", needed(results, m)) for m in TARGETS),
        ("LoRA", lora(results, TARGET_TRIALS)),
        ("Calibration", calibration(results)),
        ("Seconds a suggestion", seconds(results)),
    ]
    return "\n\n".join(f"## {title}\n\n{said}" for title, said in sections if said)


def studies(results: Results) -> str:
    """Report the number of studies, and which failed."""
    counts = results.curves.groupby("method")["seed"].count()
    lines = [
        f"{len(results.tasks)} tasks: {', '.join(results.tasks)}. Studies: "
        + ", ".join(f"{method} {counts.get(method, 0)}" for method in results.methods)
        + f". Failed: {len(results.failed)}."
    ]
    lines += [
        f"- {row.task}, {row.method}, seed {row.seed}, after {len(row.values)} trials: "
        f"{row.error.strip().splitlines()[-1]}"
        for row in results.failed.itertuples(index=False, name="Failed")
    ]
    return "\n".join(lines)


def regret(results: Results, at: Sequence[int]) -> str:
    """Report the median regret over seeds, by task."""
    rows = []
    wide = {n: results.at(n) for n in at}
    for task in results.tasks:
        for method in results.methods:
            cells = []
            for n in at:
                known = wide[n].query("task == @task")[method].dropna().to_numpy()
                estimate = bootstrap(results.scales[task].regret(known)) if len(known) else None
                cells.append(cell(estimate, ".3g"))
            rows.append([task, method, *cells])
    return "Median over seeds.\n\n" + console.table(["task", "method", *_trials(at)], rows)


def mean_regret(results: Results, at: Sequence[int]) -> str:
    """Report the mean regret over seeds and tasks, and its ratio to the first method's."""
    rows = {method: [method] for method in results.methods}
    for n in at:
        by_task = results.by_task(results.at(n))
        groups = [results.scales[task].regret(values) for task, values in by_task.items()]
        if not groups or not np.isfinite(np.vstack(groups)).all():
            return ""
        first = float(np.mean([group[:, 0].mean() for group in groups]))
        for method, estimate in zip(results.methods, mean_over_tasks(groups), strict=True):
            rows[method] += [cell(estimate, ".3f"), f"{estimate.value / first:.2f}"]
    head = ["method", *(part for n in at for part in (f"{n} trials", "ratio"))]
    return "Mean over seeds, then tasks.\n\n" + console.table(head, list(rows.values()))


def calibration(results: Results) -> str:
    """Report how often a value lies in the 95% interval that was predicted for it, by trial."""
    rows = []
    for method, some in results.curves.groupby("method", sort=False)["surprises"]:
        known = np.array([row for row in some if np.size(row) == TARGET_TRIALS])
        for first, last in CALIBRATED if len(known) else ():
            scores = known[:, first - 1 : last]
            scores = scores[~np.isnan(scores)]
            if not len(scores):
                continue
            inside = np.mean(np.abs(scores) <= Z_95)
            worse = np.mean(scores > Z_95)
            rows.append(
                [method, f"{first} to {last}", str(len(scores)), f"{inside:.1%}", f"{worse:.1%}"]
            )
    if not rows:
        return ""
    head = ["method", "trials", "predictions", "in the interval", "worse than it"]
    return "Of what the model predicted for the trials that it chose.\n\n" + console.table(
        head, rows
    )


def average_rank(results: Results, at: Sequence[int]) -> str:
    """Report the mean rank over seeds and tasks, by family and over all tasks."""
    families = {
        family: [name for name in results.tasks if tasks.family_of(name) == family]
        for family in FAMILIES
    }
    groups = {"all": list(results.tasks)} | {f: names for f, names in families.items() if names}
    rows = []
    for n in at:
        by_task = _ranks(results, n)
        for group, names in groups.items():
            some = [by_task[name] for name in names if name in by_task]
            if some:
                cells = [cell(estimate, ".2f") for estimate in mean_over_tasks(some)]
                rows.append([str(n), f"{group} ({len(some)})", *cells])
    head = ["trials", "tasks", *results.methods]
    return (
        "Mean over seeds, then tasks; both are resampled. Seeds and tasks that one of the methods "
        "has no study of are left out.\n\n" + console.table(head, rows)
    )


def paired(results: Results, at: Sequence[int]) -> str:
    """Compare the first method with each other one, over tasks and on each task."""
    ours, *rivals = results.methods
    rows = []
    for n in at:
        by_task = _ranks(results, n)
        for i, rival in enumerate(rivals, 1):
            rank_differences = [np.mean(r[:, 0] - r[:, i]) for r in by_task.values()]
            values = results.by_task(results.at(n)[[ours, rival]])
            if not rank_differences or not values:
                continue
            found = verdict([difference(*v.T) for v in values.values()])
            rows.append(
                [
                    str(n),
                    rival,
                    str(len(rank_differences)),
                    f"{np.mean(rank_differences):+.2f}",
                    f"{signed_rank_test(np.array(rank_differences)):.2g}",
                    f"{found.wins} / {found.ties} / {found.losses}",
                ]
            )
    head = ["trials", "against", "tasks", "rank difference", "p", "better / same / worse"]
    if not rows:
        return ""
    return (
        f"{ours} against each other method. Rank difference: mean over tasks; p: Wilcoxon's "
        "signed-rank test over the tasks. Better / same / worse: number of tasks, by Wilcoxon's "
        "signed-rank test over paired seeds on each, at 5% after Holm's correction over tasks."
        "\n\n" + console.table(head, rows)
    )


def needed(results: Results, target_method: str) -> str:
    """Report the trials needed to match another method's value after `TARGET_TRIALS`."""
    if target_method not in results.methods:
        return ""
    targets = results.at(TARGET_TRIALS)[target_method].dropna()
    if targets.empty:
        return ""
    rows = []
    medians: dict[str, list[float]] = {method: [] for method in results.methods}
    for task in results.tasks:
        cells = []
        for method in results.methods:
            found = [
                trials_to_reach(curve, targets[task, seed])
                for curve, seed in results.of(task, method)[["best", "seed"]].to_numpy()
                if (task, seed) in targets.index
            ]
            estimate = bootstrap(np.array(found)) if found else None
            medians[method] += [estimate.value] if estimate else []
            cells.append(cell(estimate, ".3g"))
        rows.append([task, *cells])
    over = [cell(bootstrap(np.array(m)) if m else None, ".3g") for m in medians.values()]
    rows.append(["median of the tasks", *over])
    note = "Median over seeds, paired by seed; inf: not within the budget.\n\n"
    return note + console.table(["task", *results.methods], rows)


def lora(results: Results, n_trials: int) -> str:
    """Report the gain over the default and over the other methods, in nats."""
    names = [name for name in results.tasks if tasks.family_of(name) == "lora"]
    ours = results.methods[0]
    wide = results.at(n_trials)
    rows = []
    for task in names:
        default = results.scales[task].default
        for method in results.methods:
            both = list(dict.fromkeys([ours, method]))
            losses = wide.query("task == @task")[both].dropna()
            if not len(losses):
                continue
            gain = bootstrap(default - losses[method].to_numpy(), np.mean)
            ahead = bootstrap((losses[method] - losses[ours]).to_numpy(), np.mean)
            rows.append(
                [
                    task,
                    method,
                    f"{default:.4f}",
                    f"{losses[method].mean():.4f}",
                    cell(gain, ".4f"),
                    cell(ahead, ".4f") if method != ours else "",
                ]
            )
    head = ["task", "method", "default", "loss", "gain over default", f"gain of {ours} over it"]
    if not rows:
        return ""
    return (
        f"Validation loss after {n_trials} trials, nats per response token, mean over seeds; "
        f"gains of {ours} are paired by seed.\n\n" + console.table(head, rows)
    )


def seconds(results: Results) -> str:
    """Report the median time of a suggestion, which grows with the number of trials."""
    rows = []
    for method, some in results.curves.groupby("method", sort=False)["seconds"]:
        cells = []
        for n in SUGGESTIONS:
            known = [spent[n - 1] for spent in some if len(spent) >= n]
            cells.append(f"{np.median(known):.3f}" if known else "-")
        rows.append([method, *cells, f"{np.mean(np.concatenate(list(some))):.3f}"])
    rows.sort(key=lambda row: results.methods.index(row[0]))
    head = ["method", *(f"trial {n}" for n in SUGGESTIONS), "mean of all"]
    return (
        "What a trial takes besides its value, one thread: median over studies at some trials, "
        "and the mean of all trials, as some methods think only now and then.\n\n"
        + console.table(head, rows)
    )


def about(table: pandas.DataFrame) -> str:
    """Report the commits, machines and versions of the studies."""
    versions = pandas.DataFrame([json.loads(some) for some in table["versions"].unique()])
    packages = (
        f"{package} {', '.join(sorted(versions[package].dropna().unique()))}"
        for package in sorted(versions)
    )
    unique = {name: ", ".join(sorted(table[name].unique())) for name in ("commit", "cpu", "date")}
    return (
        f"Commits: {unique['commit']}. Processors: {unique['cpu']}. Dates: {unique['date']}. "
        f"Packages: {'; '.join(packages)}."
    )


def _ranks(results: Results, n_trials: int) -> dict[str, np.ndarray]:
    """Rank all methods of the report; for each task (seeds, methods)."""
    by_task = results.by_task(results.at(n_trials))
    return {task: ranks(values) for task, values in by_task.items()}


def cell(estimate: Estimate | None, form: str) -> str:
    """Format an estimate with its interval; a dash for None."""
    if estimate is None:
        return "-"
    return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"


def _trials(at: Sequence[int]) -> list[str]:
    return [f"{n} trials" for n in at]


def main() -> None:
    """Print the report, and draw the figures if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", type=console.names, required=True)
    parser.add_argument("--tasks", default="all", help="names, families, tuning, reported, all")
    parser.add_argument("--start", choices=STARTS, default="plain")
    parser.add_argument(
        "--at", type=console.names, default=["10", "20", "30", "60"], help="trials"
    )
    parser.add_argument("--table", type=Path, default=collect.TABLE)
    parser.add_argument("--figures", type=Path, help="folder to draw the figures in")
    arguments = parser.parse_args()
    try:
        table = collect.read(arguments.table)
        results = select(
            table,
            methods=arguments.methods,
            task_names=tasks.choose(arguments.tasks),
            start=arguments.start,
        )
    except InputError as error:
        parser.error(str(error))
    print(report(results, [int(n) for n in arguments.at]))
    print("\n" + about(table[table["method"].isin(arguments.methods)]))
    if arguments.figures is not None:
        for path in figures.draw(results, arguments.figures, arguments.start):
            print(f"\n![{path.stem}]({path})")


if __name__ == "__main__":
    main()
