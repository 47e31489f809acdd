"""Print the results of the predictions as Markdown, one table per question.

    python -m benchmarks.prediction.report
    python -m benchmarks.prediction.report --questions layer,wording

Means over splits, then tasks. The first row of each part is the surrogate as shipped, except for
training; differences to it are paired by task and split, with 95% bootstrap intervals over both.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas

from benchmarks import console
from benchmarks.prediction import collect
from benchmarks.prediction.variants import Question
from benchmarks.prediction.variants import QUESTIONS
from benchmarks.race import report as race
from benchmarks.race.statistics import Estimate
from benchmarks.race.statistics import mean_over_tasks
from optuna_llmbo.errors import InputError


MEASURES = {
    "spearman": "rank correlation",
    "nlpd": "density",
    "percentile": "percentile of the 10 best",
}
TRAINING = {"training_nlpd": "training density", "left_out_nlpd": "left-out density"}

_NOTE = """\
256 configurations of each task; some of them are observed, the others are predicted. Rank
correlation of prediction and truth: higher is better. Density: negative log of the predictive
density, noise included, in units of the observed targets' deviation; lower is better. Percentile
of the 10 best: share of configurations that are truly better than those predicted best; lower is
better."""

_TRAINING_NOTE = """\
Training density: negative logarithm of the marginal likelihood, divided by the number of observed
targets; left-out density: of each of them given the others, with the same hyperparameters. Moved:
share of the fits in which training has changed the text view."""


@dataclass(frozen=True)
class Pair:
    """Compared results of two variants on the same tasks and splits."""

    estimates: dict[str, tuple[Estimate, Estimate]]
    """For each measure, the second variant's mean, and its difference to the first's."""
    n: int
    """Number of tasks and splits that both have."""
    moved: float
    """Share of the second variant's fits in which training changed the text view."""


def report(table: pandas.DataFrame, questions: Sequence[Question]) -> str:
    """Format all tables with results."""
    sections = [_NOTE]
    for question in questions:
        said = answer(table, question)
        if said:
            sections.append(f"## {question.title}\n\n{said}")
    return "\n\n".join(sections)


def answer(table: pandas.DataFrame, question: Question) -> str:
    """Format a question's table; empty without results of a base and a variant."""
    trains = question.name == "training"
    measures = MEASURES | (TRAINING if trains else {})
    known = table[table["error"].isna() & table["task"].isin(question.tasks)]
    rows = [
        row
        for base in question.bases
        for n, some in known.groupby("n_observed")
        for row in _part(some, question.rows(base), base, str(n), list(measures))
    ]
    if not rows:
        return ""
    head = ["variant", "observed", "fits"]
    for title in measures.values():
        head += [title, "difference"]
    notes = [f"Tasks: {', '.join(question.tasks)}.", *([_TRAINING_NOTE] if trains else [])]
    if trains:
        head.append("moved")
    else:
        rows = [row[:-1] for row in rows]
    return "\n\n".join([*notes, console.table(head, rows)])


def _part(
    table: pandas.DataFrame, names: Mapping[str, str], base: str, n: str, measures: Sequence[str]
) -> list[list[str]]:
    """Make the rows of one base and number of observed configurations, the base first."""
    rows = []
    for label, name in names.items():
        pair = compare(table, base, name, measures)
        if pair is None:
            continue
        cells = [f"{base}: {label}", n, str(pair.n)]
        for value, difference in pair.estimates.values():
            cells += [f"{value.value:.3f}", "" if name == base else race.cell(difference, "+.3f")]
        rows.append([*cells, f"{pair.moved:.2f}"])
    return rows if len(rows) > 1 else []


def compare(
    table: pandas.DataFrame, first: str, second: str, measures: Sequence[str]
) -> Pair | None:
    """Compare two variants; None if they have no task and split in common.

    Args:
        table: results of one number of observed configurations, none of which failed.
        first: name of the reference variant.
        second: name of the other variant.
        measures: columns to compare.
    """
    wide = table[table["method"].isin([first, second])].pivot(
        index=["task", "split"], columns="method", values=[*measures, "moved"]
    )
    if not {first, second} <= set(wide.columns.get_level_values("method")):
        return None
    wide = wide.dropna()
    if wide.empty:
        return None
    ours = wide.xs(second, axis=1, level="method").astype(float)
    theirs = wide.xs(first, axis=1, level="method").astype(float)
    columns = np.hstack([ours[[*measures]], ours[[*measures]] - theirs[[*measures]]])
    places = wide.index.get_level_values("task")
    groups = [columns[places == task] for task in dict.fromkeys(places)]
    found = mean_over_tasks(groups)
    estimates = zip(found[: len(measures)], found[len(measures) :], strict=True)
    return Pair(
        dict(zip(measures, estimates, strict=True)), len(wide), float(ours["moved"].mean())
    )


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [question.name for question in QUESTIONS]
    parser.add_argument("--questions", default=",".join(names), help="default: all")
    parser.add_argument("--table", type=Path, default=collect.TABLE)
    arguments = parser.parse_args()
    asked = console.names(arguments.questions)
    try:
        unknown = [name for name in asked if name not in names]
        if unknown:
            raise InputError(f"unknown question {unknown[0]!r}: expected {', '.join(names)}.")
        table = collect.read(arguments.table)
    except InputError as error:
        parser.error(str(error))
    print(report(table, [question for question in QUESTIONS if question.name in asked]))
    print("\n" + race.about(table))


if __name__ == "__main__":
    main()
