"""Build the report's tables as plain text; the template escapes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optuna_llmbo.figures.figure import cut
from optuna_llmbo.insight import Insight
from optuna_llmbo.insight.choices import ChoiceMap
from optuna_llmbo.insight.facts import expected_text
from optuna_llmbo.insight.facts import StudyFacts
from optuna_llmbo.insight.facts import values_text
from optuna_llmbo.space.prompt import format_value
from optuna_llmbo.study.trial_facts import TrialFacts


_BEST = 10
"""Number of trials in the table of the best."""
_MOST_SHOWN = 60
"""Characters of a choice in the table of the choices."""


@dataclass(frozen=True)
class Table:
    """A table whose first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    name: str
    """A fixed id, the same in every report."""


def best_trials(study: StudyFacts) -> Table:
    """List the best complete trials; with several objectives, the Pareto front."""
    if len(study.objectives) > 1:
        return _trials("pareto-front", "Pareto front", study, study.best)
    sign = -1 if study.objectives[0][1] == "maximize" else 1
    ranked = sorted(study.with_outcome("complete"), key=lambda trial: sign * trial.values[0])
    return _trials("best-trials", "Best trials", study, ranked[:_BEST])


def all_trials(study: StudyFacts) -> Table:
    """List every trial, in the order in which they started."""
    return _trials("all-trials", "All trials", study, study.trials)


def counts(study: StudyFacts) -> Table:
    """Count the trials by outcome."""
    rows = tuple((str(name), str(count)) for name, count in study.counts.items())
    total = ("all", str(len(study.trials)))
    return Table("How trials ended", ("outcome", "trials"), (*rows, total), "counts")


def ranges(study: StudyFacts) -> Table:
    """List the hyperparameters and their ranges."""
    rows = tuple(study.ranges.items())
    return Table("Hyperparameters", ("name", "range"), rows, "ranges")


def choices(insight: Insight) -> Table:
    """List the nominal parameters: who reads their choices, what that weighs, which are alike."""
    rows = tuple(_choices_row(found) for found in insight.choices or ())
    columns = ("parameter", "choices", "read by", "weight of meaning", "most alike")
    return Table("Choices", columns, rows, "choices")


def versions(study: StudyFacts) -> Table:
    """List the versions installed where the report was written."""
    rows = tuple(study.versions.items())
    return Table("Versions", ("package", "version"), rows, "versions")


def _choices_row(found: ChoiceMap) -> tuple[str, ...]:
    left = f", {found.n_left_out} not shown" if found.n_left_out else ""
    weight = "" if found.weight is None else f"{found.weight:.2f}"
    pairs = (
        f"{cut(pair.one, _MOST_SHOWN)} and {cut(pair.other, _MOST_SHOWN)} ({pair.correlation:.2f})"
        for pair in found.alike
    )
    counts = f"{found.n_choices} ({found.n_tried} tried{left})"
    return (found.name, counts, found.reader or "none", weight, "; ".join(pairs))


def _trials(name: str, title: str, study: StudyFacts, trials: Sequence[TrialFacts]) -> Table:
    """List trials with all that is known about them, without empty columns."""
    params = list(study.ranges)
    columns = ("trial", "outcome", *(n for n, _ in study.objectives))
    columns += ("seconds", *params, "chosen by", "expected", "reason")
    rows = [_row(trial, study, params) for trial in trials]
    kept = [i for i in range(len(columns)) if i < 2 or any(row[i] for row in rows)]
    return Table(
        title=title,
        columns=tuple(columns[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in rows),
        name=name,
    )


def _row(trial: TrialFacts, study: StudyFacts, params: Sequence[str]) -> tuple[str, ...]:
    n = len(study.objectives)
    values = [values_text((value,)) for value in trial.values] or [""] * n
    seconds = "" if trial.seconds is None else f"{trial.seconds:.1f}"
    given = trial.params
    settings = [format_value(given[name]) if name in given else "" for name in params]
    label = f"{trial.number} (default)" if trial is study.default else str(trial.number)
    told = (trial.chosen_by, expected_text(trial), trial.reason)
    return (label, trial.outcome, *values, *[""] * (n - len(values)), seconds, *settings, *told)
