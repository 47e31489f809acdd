"""The report's tables: plain text, a heading each; the template escapes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optuna_llmbo.insight.overview import expected_text
from optuna_llmbo.insight.overview import Overview
from optuna_llmbo.insight.overview import TrialFacts
from optuna_llmbo.insight.overview import values_text
from optuna_llmbo.space.prompt import format_value


_BEST = 10
"""So many trials are in the table of the best."""


@dataclass(frozen=True)
class Table:
    """A table whose first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    name: str
    """An id that is the same in every report."""


def best_trials(overview: Overview) -> Table:
    """The best complete trials; with several objectives the Pareto front."""
    if len(overview.objectives) > 1:
        return _trials("pareto-front", "Pareto front", overview, overview.best)
    sign = -1 if overview.objectives[0][1] == "maximize" else 1
    ranked = sorted(overview.with_outcome("complete"), key=lambda facts: sign * facts.values[0])
    return _trials("best-trials", "Best trials", overview, ranked[:_BEST])


def all_trials(overview: Overview) -> Table:
    """Every trial, in the order in which they were started."""
    return _trials("all-trials", "All trials", overview, overview.trials)


def counts(overview: Overview) -> Table:
    """How many trials ended how."""
    rows = tuple((str(name), str(count)) for name, count in overview.counts.items())
    total = ("all", str(len(overview.trials)))
    return Table("How trials ended", ("outcome", "trials"), (*rows, total), "counts")


def ranges(overview: Overview) -> Table:
    """What was searched."""
    rows = tuple(overview.ranges.items())
    return Table("Hyperparameters", ("name", "range"), rows, "ranges")


def versions(overview: Overview) -> Table:
    """What is installed where the report was written."""
    rows = tuple(overview.versions.items())
    return Table("Versions", ("package", "version"), rows, "versions")


def _trials(name: str, title: str, overview: Overview, trials: Sequence[TrialFacts]) -> Table:
    """Trials with all that is known of them; a column that nothing is in is left out."""
    params = list(overview.ranges)
    columns = ("trial", "outcome", *(n for n, _ in overview.objectives))
    columns += ("seconds", *params, "chosen by", "expected", "reason")
    rows = [_row(facts, overview, params) for facts in trials]
    kept = [i for i in range(len(columns)) if i < 2 or any(row[i] for row in rows)]
    return Table(
        title=title,
        columns=tuple(columns[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in rows),
        name=name,
    )


def _row(facts: TrialFacts, overview: Overview, params: Sequence[str]) -> tuple[str, ...]:
    n = len(overview.objectives)
    values = [values_text((value,)) for value in facts.values] or [""] * n
    seconds = "" if facts.seconds is None else f"{facts.seconds:.1f}"
    given = facts.trial.params
    settings = [format_value(given[name]) if name in given else "" for name in params]
    label = f"{facts.number} (default)" if facts is overview.default else str(facts.number)
    told = (facts.chosen_by, expected_text(facts), facts.reason)
    return (label, facts.outcome, *values, *[""] * (n - len(values)), seconds, *settings, *told)
