"""A study's figures, notes and files into optuna-dashboard."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
from typing import Any
from typing import TYPE_CHECKING

import optuna

from optuna_llmbo.dashboard.artifacts import upload_files
from optuna_llmbo.dashboard.notes import study_note
from optuna_llmbo.dashboard.notes import trial_notes
from optuna_llmbo.dashboard.section import with_section
from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.insight.facts import study_facts
from optuna_llmbo.study import compat
from optuna_llmbo.study.trial_attributes import NOTED


if TYPE_CHECKING:
    from optuna_llmbo.figures import Figure
    from optuna_llmbo.sampler import LLMBOSampler


_TITLE = 40
"""Pixels for the title above a legend of two rows."""

_GREY = "#7f7f7f"
"""Readable on the dashboard's light and on its dark ground; a figure cannot ask which it is."""


def publish(
    study: optuna.Study,
    sampler: LLMBOSampler | None = None,
    *,
    proxy_check: str | os.PathLike[str] | None = None,
    artifact_store: Any = None,
) -> list[str]:
    """Write what a study has found where optuna-dashboard shows it.

    Figures on the study's page; a note of the study; notes of its best trial, its default, and of
    infeasible, failed and surprising trials; files, where a store is given. Publishing again
    replaces the figures and our sections of the notes, and uploads only files that are new. Text
    that the user wrote into a note stays.

    Args:
        study: of any sampler, in any storage.
        sampler: whose model the figures ask; see `insight.examine`.
        proxy_check: see `insight.examine`.
        artifact_store: of Optuna, the one that the dashboard is started with; adapters that are
            kept and tracebacks are uploaded there.

    Returns:
        The ids of the figures.

    Raises:
        InputError: if optuna-dashboard or plotly is not installed.
    """
    check_installed()
    import optuna_dashboard

    from optuna_llmbo.figures import draw
    from optuna_llmbo.insight import examine

    insight = examine(study, sampler, proxy_check=proxy_check)
    figures = draw(insight)
    for figure in figures:
        plot = _for_dashboard(figure)
        optuna_dashboard.save_plotly_graph_object(study, plot, graph_object_id=figure.name)
    facts = study_facts(study)
    files = {} if artifact_store is None else upload_files(study, artifact_store, facts)
    links = {name: _address(study, artifact_id) for name, artifact_id in files.items()}
    _write(study, study_note(facts, insight, figures, links))
    _write_trials(study, trial_notes(facts, links))
    return [figure.name for figure in figures]


def check_installed() -> None:
    """Raises InputError if what the dashboard needs is not installed."""
    for package in ("optuna_dashboard", "plotly"):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"{package} is not installed: it comes with pip install 'optuna-llmbo[dashboard]'."
            )


def _for_dashboard(figure: Figure) -> Any:
    """A copy with its title, in the dashboard's height and in a colour for any ground.

    What it shows and how to read it stands in the study's note: the dashboard's card is small.
    """
    plot = copy.deepcopy(figure.plot if figure.small is None else figure.small)
    above = (plot.layout.margin.t or 0) + _TITLE
    plot.update_layout(
        title={"text": figure.title, "x": 0.02, "y": 0.98, "yanchor": "top", "font": {"size": 15}},
        font={"color": _GREY},
        margin={"t": above},
        height=None,
    )
    return plot


def _address(study: optuna.Study, artifact_id: str) -> str:
    from optuna_dashboard.artifact import get_artifact_path

    return str(get_artifact_path(study, artifact_id))


def _write_trials(study: optuna.Study, notes: dict[int, str]) -> None:
    """Write the trials' notes, and take our sections out of those that have none any more."""
    noted = set(json.loads(compat.system_attribute(study, NOTED) or "[]"))
    trials = {trial.number: trial for trial in compat.all_trials(study)}
    for number in sorted(noted | notes.keys()):
        if number in trials:
            _write(compat.trial_with_note(study, trials[number]), notes.get(number, ""))
    if noted != notes.keys():
        compat.set_system_attribute(study, NOTED, json.dumps(sorted(notes)))


def _write(noted: Any, text: str) -> None:
    """Put our section into a note, if it is not there as it is."""
    import optuna_dashboard

    before = optuna_dashboard.get_note(noted)
    after = with_section(before, text)
    if after is None:
        warn_once(
            "optuna-llmbo: a note in optuna-dashboard has only one of the marks of what "
            "optuna-llmbo writes, and is left as it is. Remove the mark to have it written again."
        )
    elif after != before:
        optuna_dashboard.save_note(noted, after)
