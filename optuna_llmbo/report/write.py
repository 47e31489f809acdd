"""Write the report: figures, tables and text in one HTML page."""

from __future__ import annotations

from datetime import datetime
from datetime import UTC
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from optuna_llmbo.errors import InputError
from optuna_llmbo.insight.facts import params_text
from optuna_llmbo.insight.facts import study_facts
from optuna_llmbo.insight.facts import StudyFacts
from optuna_llmbo.insight.facts import values_text
from optuna_llmbo.report import tables


if TYPE_CHECKING:
    from optuna_llmbo.figures import Figure
    from optuna_llmbo.insight import Insight
    from optuna_llmbo.sampler import LLMBOSampler


def write_report(
    study: optuna.Study,
    path: str | os.PathLike[str],
    sampler: LLMBOSampler | None = None,
    *,
    proxy_check: str | os.PathLike[str] | None = None,
) -> Path:
    """Write a study as one HTML file: figures, how to read them, and tables.

    The file works offline. It contains plotly.js, which makes up most of its size (about 5 MB).

    Args:
        study: a study of any sampler, with any number of objectives; it may be empty.
        path: path of the file; an existing file is replaced.
        sampler: sampler whose model the figures show; see `insight.examine`.
        proxy_check: see `insight.examine`.

    Returns:
        The file's path.

    Raises:
        InputError: if plotly or Jinja2 is not installed, or the file cannot be written.
    """
    _check_installed()
    from optuna_llmbo.figures import draw
    from optuna_llmbo.insight import examine

    insight = examine(study, sampler, proxy_check=proxy_check)
    text = _page(study_facts(study), insight, draw(insight))
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write the report {path}: {error.strerror}.") from error
    return path


def _check_installed() -> None:
    for package in ("plotly", "jinja2"):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"{package} is not installed: it comes with pip install 'optuna-llmbo[report]'."
            )


def _page(facts: StudyFacts, insight: Insight, figures: list[Figure]) -> str:
    import jinja2
    import plotly.offline

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("optuna_llmbo.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        facts=facts,
        summary=_summary(facts, insight),
        reasons=insight.reasons,
        figures=[(figure, _json(figure)) for figure in figures],
        tables=_tables(facts, insight),
        plotly=plotly.offline.get_plotlyjs(),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _tables(facts: StudyFacts, insight: Insight) -> list[tables.Table]:
    found = [
        tables.best_trials(facts),
        tables.ranges(facts),
        tables.choices(insight),
        tables.all_trials(facts),
    ]
    filled = [table for table in found if table.rows]
    return [tables.counts(facts), *filled, tables.versions(facts)]


def _summary(facts: StudyFacts, insight: Insight) -> list[tuple[str, str]]:
    """List the few things to know first, as terms and texts."""
    goals = ", ".join(f"{how} {name}" for name, how in facts.objectives)
    lines = [("Goal", goals), ("Trials", str(len(facts.trials)))]
    if facts.context:
        lines.append(("Context", params_text(facts.context)))
    if facts.best and len(facts.objectives) == 1:
        best = facts.best[0]
        found = f"{values_text(best.values)} in trial {best.number}"
        lines += [("Best", found), ("Its configuration", params_text(best.trial.params))]
    elif facts.best:
        lines.append(("Pareto front", f"{len(facts.best)} trials"))
    else:
        lines.append(("Best", "no trial is complete and feasible yet"))
    if facts.default is not None:
        default = f"{values_text(facts.default.values)} in trial {facts.default.number}"
        lines.append(("Default", default))
    if facts.gain is not None:
        lines.append(("Gain over the default", f"{facts.gain:.4g}" if facts.gain else "none"))
    if insight.trust is not None:
        lines.append((insight.trust.title, insight.trust.text))
    return lines


def _json(figure: Figure) -> str:
    """Serialize a figure for plotly.js, safe inside a script element."""
    text = str(figure.plot.to_json())
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
