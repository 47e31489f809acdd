"""Publish a study's figures, notes and files to optuna-dashboard."""

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
"""Pixels for the title, above a legend of two rows."""

_GREY = "#7f7f7f"
"""Readable on the dashboard's light and dark themes; a figure cannot tell which is shown."""


def publish(
    study: optuna.Study,
    sampler: LLMBOSampler | None = None,
    *,
    proxy_check: str | os.PathLike[str] | None = None,
    artifact_store: Any = None,
) -> list[str]:
    """Publish what a study has found to optuna-dashboard.

    Publishes figures on the study's page; a note on the study; notes on its best and default
    trials and on infeasible, failed and surprising ones; and files, if a store is given.
    Publishing again replaces the figures and our sections of the notes, and uploads only new
    files. Text that the user wrote in a note is kept.

    Args:
        study: a study of any sampler, in any storage.
        sampler: sampler whose model the figures show; see `insight.examine`.
        proxy_check: see `insight.examine`.
        artifact_store: the Optuna artifact store that the dashboard is started with; receives
            tracebacks and the adapters that were kept.

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
    """Raise InputError if a package that the dashboard needs is not installed."""
    for package in ("optuna_dashboard", "plotly"):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"{package} is not installed: it comes with pip install 'optuna-llmbo[dashboard]'."
            )


def _for_dashboard(figure: Figure) -> Any:
    """Copy a figure with its title, at the dashboard's height, readable on any background.

    The dashboard's card is small, so finding and caption go into the study's note.
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
    """Write the trials' notes, and remove our sections from trials that no longer have one."""
    noted = set(json.loads(compat.system_attribute(study, NOTED) or "[]"))
    trials = {trial.number: trial for trial in compat.all_trials(study)}
    for number in sorted(noted | notes.keys()):
        if number in trials:
            _write(compat.trial_with_note(study, trials[number]), notes.get(number, ""))
    if noted != notes.keys():
        compat.set_system_attribute(study, NOTED, json.dumps(sorted(notes)))


def _write(noted: Any, text: str) -> None:
    """Write our section into a note, unless it is already up to date."""
    import optuna_dashboard

    before = optuna_dashboard.get_note(noted)
    after = with_section(before, text)
    if after is None:
        warn_once(
            "optuna-llmbo: a note in optuna-dashboard has only one of the marks around the text "
            "of optuna-llmbo, and is left unchanged. Remove the mark to have it written again."
        )
    elif after != before:
        optuna_dashboard.save_note(noted, after)
