"""The texts of the notes, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna_llmbo.dashboard.section import escape
from optuna_llmbo.insight.facts import expected_text
from optuna_llmbo.insight.facts import params_text
from optuna_llmbo.insight.facts import StudyFacts
from optuna_llmbo.insight.facts import values_text
from optuna_llmbo.study.trial_facts import TrialFacts


if TYPE_CHECKING:
    from optuna_llmbo.figures import Figure
    from optuna_llmbo.insight import Insight


_MOST = 20
"""So many trials at most are listed by name; each has its own note beside."""


def study_note(
    study_facts: StudyFacts, insight: Insight, figures: Sequence[Figure], files: Mapping[str, str]
) -> str:
    """What was searched and found, what comes next and how to read the figures.

    Args:
        study_facts: the facts of the study.
        insight: what the model says of it.
        figures: that are published with the note.
        files: the artifacts' names and addresses.
    """
    parts = [
        "## The search so far",
        _searched(study_facts),
        _found(study_facts),
        _listed("### What the figures show", map(_finding, [f for f in figures if f.finding])),
        _listed("### Infeasible", map(_told, study_facts.with_outcome("infeasible"))),
        _listed("### Failed", map(_told, study_facts.with_outcome("failed"))),
        _listed("### Surprises", map(_surprise_told, study_facts.surprises)),
        _listed("### How to read the figures", map(_caption, figures)),
        _listed("### What is missing", map(escape, insight.reasons)),
        _listed("### Files", (f"[{escape(name)}]({url})" for name, url in files.items())),
        "### Versions",
        ", ".join(f"{escape(name)} {version}" for name, version in study_facts.versions.items()),
    ]
    return "\n\n".join(part for part in parts if part)


def trial_notes(study_facts: StudyFacts, files: Mapping[str, str]) -> dict[int, str]:
    """The notes of the trials that are worth one, by number: the best, the default, infeasible
    and failed ones, surprises."""
    notes: dict[int, list[str]] = {}
    for number, text in _remarks(study_facts):
        notes.setdefault(number, []).append(text)
    for name, url in files.items():
        number = int(name.split("-")[1])
        if number in notes:
            notes[number].append(f"File: [{escape(name)}]({url})")
    return {number: "\n\n".join(texts) for number, texts in notes.items()}


def _remarks(study_facts: StudyFacts) -> Iterator[tuple[int, str]]:
    """What is worth saying of trials, by their numbers."""
    for facts in study_facts.best:
        yield facts.number, _best_note(study_facts)
    if study_facts.default is not None:
        yield study_facts.default.number, "**The default configuration.** Gains are against it."
    for facts in study_facts.with_outcome("infeasible"):
        yield facts.number, f"**Infeasible**: {_reason(facts)}"
    for facts in study_facts.with_outcome("failed"):
        yield facts.number, f"**Failed**: {_reason(facts)}"
    for facts in study_facts.surprises:
        yield facts.number, f"**A surprise**: {_surprise(facts)}."


def _searched(study_facts: StudyFacts) -> str:
    goals = ", ".join(f"{how} {escape(name)}" for name, how in study_facts.objectives)
    ranges = [f"| {escape(n)} | {escape(text)} |" for n, text in study_facts.ranges.items()]
    table = "\n".join(["| hyperparameter | range |", "|---|---|", *ranges]) if ranges else ""
    return "\n\n".join(part for part in (f"The goal: {goals}.", table) if part)


def _found(study_facts: StudyFacts) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in study_facts.counts.items())
    lines = [f"{len(study_facts.trials)} trials: {counts}."]
    if not study_facts.best:
        return f"{lines[0]} No trial is complete and feasible yet."
    head = "Best" if len(study_facts.objectives) == 1 else "Pareto front"
    lines += [f"**{head}**: {_trial(facts)}" for facts in study_facts.best[:_MOST]]
    if study_facts.default is not None:
        lines.append(f"**Default**: {_trial(study_facts.default)}")
    if study_facts.gain:
        lines.append(f"The best is {study_facts.gain:.4g} better than the default.")
    elif study_facts.gain == 0:
        lines.append("No trial is better than the default.")
    return "\n\n".join(lines)


def _best_note(study_facts: StudyFacts) -> str:
    if len(study_facts.objectives) > 1:
        return "**On the Pareto front**: no trial is better in one objective and as good in all."
    against = f", {study_facts.gain:.4g} better than the default" if study_facts.gain else ""
    return f"**The best trial so far**{against}."


def _trial(facts: TrialFacts) -> str:
    params = escape(params_text(facts.trial.params))
    return f"trial {facts.number}, {values_text(facts.values)}: {params}"


def _told(facts: TrialFacts) -> str:
    return f"Trial {facts.number}: {_reason(facts)}"


def _reason(facts: TrialFacts) -> str:
    return escape(facts.reason) or "no reason was recorded"


def _surprise(facts: TrialFacts) -> str:
    return (
        f"expected {expected_text(facts)}, observed {values_text(facts.values)}, "
        f"{facts.surprise:.1f} deviations away"
    )


def _surprise_told(facts: TrialFacts) -> str:
    return f"Trial {facts.number}: {_surprise(facts)}"


def _finding(figure: Figure) -> str:
    return f"**{escape(figure.title)}**: {escape(figure.finding)}"


def _caption(figure: Figure) -> str:
    return f"**{escape(figure.title)}**: {escape(figure.caption)}"


def _listed(heading: str, items: Iterable[str]) -> str:
    """A heading and a list, or nothing where there are no items."""
    lines = [f"- {item}" for item in items]
    left_out = len(lines) - _MOST
    more = [f"- and {left_out} more"] if left_out > 0 else []
    return "\n".join([heading, "", *lines[:_MOST], *more]) if lines else ""
