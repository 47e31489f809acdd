"""Print how well choices are predicted, as Markdown tables.

    python -m benchmarks.choices.report

Means over splits and tables, then over families of tables: each family weighs the same, however
many tables it has. Differences to the surrogate as shipped without a language model are paired by
table and split, with 95% bootstrap intervals over families and over what is in them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas

from benchmarks import console
from benchmarks.choices import results
from benchmarks.choices.variants import BASE
from benchmarks.choices.variants import VARIANTS
from benchmarks.race import choices
from benchmarks.race import report as race
from benchmarks.race.statistics import Estimate
from benchmarks.race.statistics import mean_over_tasks
from optuna_llmbo.errors import InputError


PARTS = {"Tuning tables": choices.TUNING, "Reported tables": choices.REPORTED}
GROUPS = PARTS | {"All tables": (*choices.TUNING, *choices.REPORTED)}
SHOWN = ("spearman", "nlpd", "coverage")
BY_FAMILY_AT = 30
"""Observed rows of the tables by family."""

_NOTE = """\
Up to 500 rows of each table are predicted from the observed ones. Rank correlation of prediction
and truth: higher is better. Density: negative log of the predictive density, noise included, in
units of the observed targets' deviation; lower is better. Coverage: share of the rows inside their
95% interval, noise included. Differences are to `{base}`."""


@dataclass(frozen=True)
class Row:
    """Results of a variant on a group of tables."""

    n_fits: int
    means: dict[str, Estimate]
    """Of each measure."""
    differences: dict[str, Estimate]
    """To the base."""


def family_of(task: str) -> str:
    """Return the family of a table, "automl" of "choices-automl-2"."""
    for family in ("automl", "prompts", "rag"):
        if task.startswith(f"choices-{family}-"):
            return family
    return task.removeprefix("choices-")


def report(table: pandas.DataFrame) -> str:
    """Format all tables with results."""
    sections = [_NOTE.format(base=BASE)]
    known = table[table["error"].isna()]
    for title, tasks in GROUPS.items():
        for n, some in known[known["task"].isin(tasks)].groupby("n_observed"):
            is_both = all(some["task"].isin(part).any() for part in PARTS.values())
            if title in PARTS or is_both:
                sections.append(_overall(f"{title}, {n} observed", some))
    for title, tasks in PARTS.items():
        some = known[known["task"].isin(tasks) & (known["n_observed"] == BY_FAMILY_AT)]
        if len(some):
            sections.append(_by_family(f"{title} by family, {BY_FAMILY_AT} observed", some))
    return "\n\n".join(sections)


def _overall(title: str, table: pandas.DataFrame) -> str:
    """Make the table of the variants that have results for all tables of some, on equal splits."""
    complete = set(table.loc[table["method"] == BASE, "task"])
    table = table[table["split"].isin(_shared_splits(table[table["method"] == BASE]))]
    rows = []
    for name, variant in VARIANTS.items():
        if set(table.loc[table["method"] == name, "task"]) != complete:
            continue
        row = compare(table, name)
        if row is not None:
            rows.append([f"{name}: {variant.says}", *_cells(row, is_base=name == BASE)])
    n_families = len({*map(family_of, complete)})
    said = f"{len(complete)} tables in {n_families} families."
    head = ["variant", "fits", "rank correlation", "difference", "density", "difference"]
    return f"## {title}\n\n{said}\n\n{console.table([*head, 'coverage'], rows)}"


def _shared_splits(table: pandas.DataFrame) -> set[int]:
    """Return the splits that all tables have."""
    splits = (set(some) for _, some in table.groupby("task")["split"])
    return set.intersection(set(table["split"]), *splits)


def _cells(row: Row, *, is_base: bool) -> list[str]:
    cells = [str(row.n_fits)]
    for measure in ("spearman", "nlpd"):
        difference = "" if is_base else race.cell(row.differences[measure], "+.3f")
        cells += [f"{row.means[measure].value:.3f}", difference]
    return [*cells, f"{row.means['coverage'].value:.1%}"]


def _by_family(title: str, table: pandas.DataFrame) -> str:
    """Make the table of the measures by family."""
    there = set(table["task"])
    ordered = (family_of(task) for task in GROUPS["All tables"] if task in there)
    families = list(dict.fromkeys(ordered))
    rows = []
    for name in VARIANTS:
        own = table[table["method"] == name]
        if own.empty:
            continue
        means = own.groupby(own["task"].map(family_of))[[*SHOWN]].mean()
        cells = [
            f"{means.at[family, 'spearman']:.2f} / {means.at[family, 'nlpd']:.2f} / "
            f"{means.at[family, 'coverage']:.0%}"
            if family in means.index
            else "-"
            for family in families
        ]
        rows.append([name, *cells])
    said = "Rank correlation / density / coverage."
    return f"## {title}\n\n{said}\n\n{console.table(['variant', *families], rows)}"


def compare(table: pandas.DataFrame, name: str) -> Row | None:
    """Compare a variant with the base; None if they have no table and split in common.

    Args:
        table: results of one number of observed rows, none of which failed.
        name: of the variant.
    """
    wide = table[table["method"].isin([BASE, name])].pivot(
        index=["task", "split"], columns="method", values=[*SHOWN]
    )
    if not {BASE, name} <= set(wide.columns.get_level_values("method")):
        return None
    wide = wide.dropna()
    if wide.empty:
        return None
    ours = wide.xs(name, axis=1, level="method").astype(float)[[*SHOWN]]
    theirs = wide.xs(BASE, axis=1, level="method").astype(float)[[*SHOWN]]
    columns = np.hstack([ours, ours - theirs])
    families = wide.index.get_level_values("task").map(family_of)
    groups = [columns[families == family] for family in dict.fromkeys(families)]
    found = mean_over_tasks(groups)
    means, differences = found[: len(SHOWN)], found[len(SHOWN) :]
    return Row(
        len(wide),
        dict(zip(SHOWN, means, strict=True)),
        dict(zip(SHOWN, differences, strict=True)),
    )


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, default=results.TABLE)
    arguments = parser.parse_args()
    try:
        table = results.read(arguments.table)
    except InputError as error:
        parser.error(str(error))
    print(report(table))
    print("\n" + race.about(table))


if __name__ == "__main__":
    main()
