"""Draw which choices the model takes to be alike, as small multiples."""

from __future__ import annotations

from collections.abc import Sequence
import math
import textwrap
from typing import Any
from typing import TYPE_CHECKING

from optuna_llmbo.figures.figure import cut
from optuna_llmbo.figures.figure import expectation_colours
from optuna_llmbo.figures.figure import Figure
from optuna_llmbo.figures.figure import GREY
from optuna_llmbo.figures.figure import laid_out
from optuna_llmbo.figures.figure import rounded
from optuna_llmbo.figures.figure import short
from optuna_llmbo.figures.figure import small_multiples
from optuna_llmbo.figures.figure import VERMILION
from optuna_llmbo.insight import Insight
from optuna_llmbo.insight.choices import Choice
from optuna_llmbo.insight.choices import ChoiceMap


if TYPE_CHECKING:
    import plotly.graph_objects as go


CAPTION = (
    "Choices that the model takes to be alike are near each other; the colour is what it expects, "
    "all else as in the recommended trial (star). Weight of meaning: how far a language model "
    "says what is alike, 0 to 1; where none reads, all are equally far apart, on a circle. Bad "
    "sign: a weight near 0 while most are untried: reading does not tell what counts; describe= "
    "may say it better."
)
_COLUMNS = 2
_MOST_PANELS = 12
_COLUMNS_IN_SMALL = 3
_MOST_IN_SMALL = 6
_ROW = 250
"""Height of a row of panels in pixels."""
_BELOW = 46
"""Space between rows in pixels, part of a row's height."""
_SPACING = 0.26
"""Space between rows as a share of the height, where the height is not set."""
_MOST_POINTS = 200
"""Choices drawn in all panels together, each in about 200 bytes."""
_MOST_NAMED = 12
"""Choices in a panel that have their names beside them."""
_MOST_LISTED = 3
"""Parameters that the finding names."""
_NAME = 16
"""Characters of a choice's name in a panel."""
_HOVER, _HOVER_LINE = 60, 40
"""Characters of a choice, and of a line of them, where the cursor is."""
_MARGIN = 0.25
"""Space around the choices for their names, as a share of their spread."""
_LOOKS: dict[str, dict[str, Any]] = {
    "untried": {"size": 7, "symbol": "circle", "opacity": 0.6, "line": {"width": 0}},
    "tried": {"size": 11, "symbol": "circle", "line": {"width": 2, "color": GREY}},
    "recommended": {"size": 16, "symbol": "star", "line": {"width": 1, "color": VERMILION}},
}


def choices(insight: Insight) -> Figure | None:
    """Draw the figure; None without nominal parameters, or if there is no model to ask."""
    found, objective = insight.choices, insight.objective
    if not found or objective is None:
        return None
    panels = found[:_MOST_PANELS]
    by_effect = sorted(found, key=_effect, reverse=True)
    rows = math.ceil(len(panels) / _COLUMNS)
    plot = _multiples(insight, panels, _COLUMNS, height=rows * _ROW + 60)
    small = _multiples(insight, by_effect[:_MOST_IN_SMALL], _COLUMNS_IN_SMALL, height=None)
    title = "Which choices are alike"
    return Figure("llmbo-choices", title, CAPTION, _finding(found, panels), plot, small)


def _effect(one: ChoiceMap) -> float:
    means = [choice.mean for choice in one.choices]
    return max(means) - min(means)


def _multiples(
    insight: Insight, panels: Sequence[ChoiceMap], columns: int, *, height: int | None
) -> go.Figure:
    """Draw one panel per parameter; without `height`, sized for a dashboard card."""
    columns = min(columns, len(panels))
    plot = small_multiples(
        len(panels),
        columns,
        height=height,
        below=_BELOW,
        spacing=_SPACING,
        horizontal_spacing=0.05,
    )
    seen: set[str] = set()
    for i, panel in enumerate(panels):
        where = {"row": i // columns + 1, "col": i % columns + 1}
        shown = _shown(panel, len(panels))
        _draw(plot, shown, where, seen)
        heading = short(panel.name, 28 if height else 18)
        plot.update_xaxes(
            title_text=f"{heading}<br>{_weight(panel)}",
            range=_range([choice.x for choice in shown]),
            showticklabels=False,
            **where,
        )
        plot.update_yaxes(range=_range([choice.y for choice in shown]), visible=False, **where)
    assert insight.objective is not None
    means = [choice.mean for panel in panels for choice in _shown(panel, len(panels))]
    return laid_out(
        plot,
        height=height,
        showlegend=True,
        margin={"l": 14, "r": 14, "t": 44, "b": 46},
        coloraxis=expectation_colours(insight.objective, means),
    )


def _shown(panel: ChoiceMap, n_panels: int) -> Sequence[Choice]:
    """The choices that a panel has room for; the first ones matter most."""
    return panel.choices[: _MOST_POINTS // n_panels]


def _weight(panel: ChoiceMap) -> str:
    return "not read" if panel.weight is None else f"weight of meaning {panel.weight:.2f}"


def _range(places: Sequence[float]) -> list[float | None]:
    low, high = min(places), max(places)
    margin = _MARGIN * (high - low) or 1.0
    return rounded([low - margin, high + margin], 3)


def _draw(  # type: ignore[no-untyped-def]
    plot, shown: Sequence[Choice], where: dict[str, int], seen: set[str]
) -> None:
    named = len(shown) <= _MOST_NAMED
    for kind, looks in _LOOKS.items():
        some = [choice for choice in shown if _kind(choice) == kind]
        if not some:
            continue
        names = [short(choice.text, _NAME) for choice in some]
        plot.add_scatter(
            x=rounded([choice.x for choice in some], 3),
            y=rounded([choice.y for choice in some], 3),
            mode="markers+text" if named else "markers",
            text=names if named else None,
            textposition="top center",
            textfont={"size": 9},
            cliponaxis=False,
            marker={
                **looks,
                "color": rounded([choice.mean for choice in some]),
                "coloraxis": "coloraxis",
            },
            customdata=[[_hover(choice.text), choice.n_trials] for choice in some],
            hovertemplate="%{customdata[0]}<br>expected %{marker.color}<br>"
            "trials %{customdata[1]}<extra></extra>",
            name=kind,
            legendgroup=kind,
            showlegend=kind not in seen,
            **where,
        )
        seen.add(kind)


def _kind(choice: Choice) -> str:
    if choice.is_held:
        return "recommended"
    return "tried" if choice.n_trials else "untried"


def _hover(text: str) -> str:
    """The beginning of a choice in lines."""
    lines = textwrap.wrap(cut(text, _HOVER), _HOVER_LINE)
    return "<br>".join(short(line, _HOVER) for line in lines)


def _finding(found: Sequence[ChoiceMap], panels: Sequence[ChoiceMap]) -> str:
    """Which parameters are read and how much that weighs, what is most alike, what is left out."""
    read = sorted((one for one in found if one.weight is not None), key=_by_weight)
    unread = [one for one in found if one.weight is None]
    sentences = []
    if read:
        weights = _listed([f"{cut(one.name, 30)} {one.weight:.2f}" for one in read])
        sentences.append(f"Weight of meaning: {weights}, read by {cut(read[0].reader, 60)}.")
        most = read[0].alike[0]
        pair = f"{cut(most.one, 30)} and {cut(most.other, 30)}"
        sentences.append(f"Most alike in {cut(read[0].name, 30)}: {pair}.")
    if unread:
        names = _listed([cut(one.name, 30) for one in unread])
        sentences.append(f"Not read: {names}.")
    left = sum(one.n_choices - len(_shown(one, len(panels))) for one in panels)
    if left:
        sentences.append(f"{left} more choices are not drawn.")
    if len(found) > len(panels):
        sentences.append(f"{len(found) - len(panels)} more parameters are not drawn.")
    return " ".join(sentences)


def _by_weight(one: ChoiceMap) -> tuple[float, str]:
    """Sorts the heaviest first."""
    return -(one.weight or 0.0), one.name


def _listed(items: Sequence[str]) -> str:
    more = len(items) - _MOST_LISTED
    return ", ".join([*items[:_MOST_LISTED], *([f"and {more} more"] if more > 0 else [])])
