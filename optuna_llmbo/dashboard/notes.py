"""Write the notes' texts, in Markdown."""

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
"""Largest number of trials listed in the study's note; each also has its own note."""


def study_note(
    study: StudyFacts, insight: Insight, figures: Sequence[Figure], files: Mapping[str, str]
) -> str:
    """Write the study's note: what was searched and found, and how to read the figures.

    Args:
        study: facts about the study.
        insight: what the model says about it.
        figures: figures published with the note.
        files: names and addresses of the artifacts.
    """
    parts = [
        "## The search so far",
        _searched(study),
        _found(study),
        _trusted(insight),
        _listed("### What the figures show", map(_finding, [f for f in figures if f.finding])),
        _listed("### Infeasible", map(_told, study.with_outcome("infeasible"))),
        _listed("### Failed", map(_told, study.with_outcome("failed"))),
        _listed("### Surprises", map(_surprise_told, study.surprises)),
        _listed("### How to read the figures", map(_caption, figures)),
        _listed("### What is missing", map(escape, insight.reasons)),
        _listed("### Files", (f"[{escape(name)}]({url})" for name, url in files.items())),
        "### Versions",
        ", ".join(f"{escape(name)} {version}" for name, version in study.versions.items()),
    ]
    return "\n\n".join(part for part in parts if part)


def trial_notes(study: StudyFacts, files: Mapping[str, str]) -> dict[int, str]:
    """Write notes for trials that deserve one, by number: the best, the default, infeasible
    and failed trials, surprises."""
    notes: dict[int, list[str]] = {}
    for number, text in _remarks(study):
        notes.setdefault(number, []).append(text)
    for name, url in files.items():
        number = int(name.split("-")[1])
        if number in notes:
            notes[number].append(f"File: [{escape(name)}]({url})")
    return {number: "\n\n".join(texts) for number, texts in notes.items()}


def _remarks(study: StudyFacts) -> Iterator[tuple[int, str]]:
    """Yield remarks on trials, with their numbers."""
    for trial in study.best:
        yield trial.number, _best_note(study)
    if study.default is not None:
        yield study.default.number, "**The default configuration.** Gains are against it."
    for trial in study.with_outcome("infeasible"):
        yield trial.number, f"**Infeasible**: {_reason(trial)}"
    for trial in study.with_outcome("failed"):
        yield trial.number, f"**Failed**: {_reason(trial)}"
    for trial in study.surprises:
        yield trial.number, f"**A surprise**: {_surprise(trial)}."


def _searched(study: StudyFacts) -> str:
    goals = ", ".join(f"{how} {escape(name)}" for name, how in study.objectives)
    ranges = [f"| {escape(n)} | {escape(text)} |" for n, text in study.ranges.items()]
    table = "\n".join(["| hyperparameter | range |", "|---|---|", *ranges]) if ranges else ""
    return "\n\n".join(part for part in (f"The goal: {goals}.", table) if part)


def _found(study: StudyFacts) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in study.counts.items())
    lines = [f"{len(study.trials)} trials: {counts}."]
    if not study.best:
        return f"{lines[0]} No trial is complete and feasible yet."
    head = "Best" if len(study.objectives) == 1 else "Pareto front"
    lines += [f"**{head}**: {_trial(trial)}" for trial in study.best[:_MOST]]
    if study.default is not None:
        lines.append(f"**Default**: {_trial(study.default)}")
    if study.gain:
        lines.append(f"The best is {study.gain:.4g} better than the default.")
    elif study.gain == 0:
        lines.append("No trial is better than the default.")
    return "\n\n".join(lines)


def _trusted(insight: Insight) -> str:
    trust = insight.trust
    return "" if trust is None else f"**{escape(trust.title)}**: {escape(trust.text)}"


def _best_note(study: StudyFacts) -> str:
    if len(study.objectives) > 1:
        return "**On the Pareto front**: no trial is better in one objective and as good in all."
    against = f", {study.gain:.4g} better than the default" if study.gain else ""
    return f"**The best trial so far**{against}."


def _trial(trial: TrialFacts) -> str:
    params = escape(params_text(trial.params))
    return f"trial {trial.number}, {values_text(trial.values)}: {params}"


def _told(trial: TrialFacts) -> str:
    return f"Trial {trial.number}: {_reason(trial)}"


def _reason(trial: TrialFacts) -> str:
    return escape(trial.reason) or "no reason was recorded"


def _surprise(trial: TrialFacts) -> str:
    return (
        f"expected {expected_text(trial)}, observed {values_text(trial.values)}, "
        f"{trial.surprise:.1f} standard deviations away"
    )


def _surprise_told(trial: TrialFacts) -> str:
    return f"Trial {trial.number}: {_surprise(trial)}"


def _finding(figure: Figure) -> str:
    return f"**{escape(figure.title)}**: {escape(figure.finding)}"


def _caption(figure: Figure) -> str:
    return f"**{escape(figure.title)}**: {escape(figure.caption)}"


def _listed(heading: str, items: Iterable[str]) -> str:
    """Format a heading and a list; empty if there are no items."""
    lines = [f"- {item}" for item in items]
    left_out = len(lines) - _MOST
    more = [f"- and {left_out} more"] if left_out > 0 else []
    return "\n".join([heading, "", *lines[:_MOST], *more]) if lines else ""
