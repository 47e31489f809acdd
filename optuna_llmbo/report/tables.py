"""The report's tables: plain text, a heading each; the template escapes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optuna_llmbo.insight.facts import expected_text
from optuna_llmbo.insight.facts import StudyFacts
from optuna_llmbo.insight.facts import values_text
from optuna_llmbo.space.prompt import format_value
from optuna_llmbo.study.trial_facts import TrialFacts


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


def best_trials(study_facts: StudyFacts) -> Table:
    """The best complete trials; with several objectives the Pareto front."""
    if len(study_facts.objectives) > 1:
        return _trials("pareto-front", "Pareto front", study_facts, study_facts.best)
    sign = -1 if study_facts.objectives[0][1] == "maximize" else 1
    ranked = sorted(study_facts.with_outcome("complete"), key=lambda facts: sign * facts.values[0])
    return _trials("best-trials", "Best trials", study_facts, ranked[:_BEST])


def all_trials(study_facts: StudyFacts) -> Table:
    """Every trial, in the order in which they were started."""
    return _trials("all-trials", "All trials", study_facts, study_facts.trials)


def counts(study_facts: StudyFacts) -> Table:
    """How many trials ended how."""
    rows = tuple((str(name), str(count)) for name, count in study_facts.counts.items())
    total = ("all", str(len(study_facts.trials)))
    return Table("How trials ended", ("outcome", "trials"), (*rows, total), "counts")


def ranges(study_facts: StudyFacts) -> Table:
    """What was searched."""
    rows = tuple(study_facts.ranges.items())
    return Table("Hyperparameters", ("name", "range"), rows, "ranges")


def versions(study_facts: StudyFacts) -> Table:
    """What is installed where the report was written."""
    rows = tuple(study_facts.versions.items())
    return Table("Versions", ("package", "version"), rows, "versions")


def _trials(name: str, title: str, study_facts: StudyFacts, trials: Sequence[TrialFacts]) -> Table:
    """Trials with all that is known of them; a column that nothing is in is left out."""
    params = list(study_facts.ranges)
    columns = ("trial", "outcome", *(n for n, _ in study_facts.objectives))
    columns += ("seconds", *params, "chosen by", "expected", "reason")
    rows = [_row(facts, study_facts, params) for facts in trials]
    kept = [i for i in range(len(columns)) if i < 2 or any(row[i] for row in rows)]
    return Table(
        title=title,
        columns=tuple(columns[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in rows),
        name=name,
    )


def _row(facts: TrialFacts, study_facts: StudyFacts, params: Sequence[str]) -> tuple[str, ...]:
    n = len(study_facts.objectives)
    values = [values_text((value,)) for value in facts.values] or [""] * n
    seconds = "" if facts.seconds is None else f"{facts.seconds:.1f}"
    given = facts.trial.params
    settings = [format_value(given[name]) if name in given else "" for name in params]
    label = f"{facts.number} (default)" if facts is study_facts.default else str(facts.number)
    told = (facts.chosen_by, expected_text(facts), facts.reason)
    return (label, facts.outcome, *values, *[""] * (n - len(values)), seconds, *settings, *told)
