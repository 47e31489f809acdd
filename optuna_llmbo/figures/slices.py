"""Draw what the model says about each hyperparameter, as small multiples."""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any
from typing import TYPE_CHECKING

from optuna_llmbo.figures.figure import axis_title
from optuna_llmbo.figures.figure import BAND
from optuna_llmbo.figures.figure import BLUE
from optuna_llmbo.figures.figure import by_outcome
from optuna_llmbo.figures.figure import cut
from optuna_llmbo.figures.figure import Figure
from optuna_llmbo.figures.figure import GREY
from optuna_llmbo.figures.figure import laid_out
from optuna_llmbo.figures.figure import rounded
from optuna_llmbo.figures.figure import short
from optuna_llmbo.figures.figure import small_multiples
from optuna_llmbo.figures.figure import SYMBOLS
from optuna_llmbo.figures.figure import thinned
from optuna_llmbo.figures.figure import value_range
from optuna_llmbo.insight import Insight
from optuna_llmbo.insight.slices import Slice


if TYPE_CHECKING:
    import plotly.graph_objects as go


CAPTION = (
    "One hyperparameter a panel, the others held at the recommended configuration (dotted "
    "line): what the model expects, and the central 95% interval. Marks are trials; their "
    "other hyperparameters differ, so they need not lie in the band, and those far off are "
    "cut off. Bad sign: the best at an end of a range, which is then too narrow, or a band as "
    "high as the panel, as then little is known."
)
_COLUMNS = 2
_MOST_PANELS = 12
_COLUMNS_IN_SMALL = 3
_MOST_IN_SMALL = 6
_ROW = 222
"""Height of a row of panels in pixels."""
_BELOW = 52
"""Space between rows in pixels, part of a row's height."""
_SPACING = 0.32
"""Space between rows as a share of the height, where the height is not set."""
_MOST_CHOICES = 20


def slices(insight: Insight) -> Figure | None:
    """Draw the figure; None if there is no model to ask."""
    found, objective = insight.slices, insight.objective
    if found is None or not found.slices or objective is None:
        return None
    panels = found.slices[:_MOST_PANELS]
    by_effect = sorted(found.slices, key=_effect, reverse=True)
    rows = math.ceil(len(panels) / _COLUMNS)
    plot = _multiples(insight, panels, _COLUMNS, height=rows * _ROW + 20)
    small = _multiples(insight, by_effect[:_MOST_IN_SMALL], _COLUMNS_IN_SMALL, height=None)
    largest = ", ".join(cut(one.name, 30) for one in by_effect[:3])
    left = len(found.slices) - len(panels)
    finding = (
        f"Recommended: trial {found.number}. The model sees the largest differences along "
        f"{largest}." + (f" {left} more hyperparameters are not drawn." if left else "")
    )
    return Figure("llmbo-slices", "Each hyperparameter alone", CAPTION, finding, plot, small)


def _effect(one: Slice) -> float:
    return max(one.mean) - min(one.mean)


def _multiples(
    insight: Insight, panels: Sequence[Slice], columns: int, *, height: int | None
) -> go.Figure:
    """Draw one panel per slice; without `height`, sized for a dashboard card."""
    columns = min(columns, len(panels))
    plot = small_multiples(
        len(panels),
        columns,
        height=height,
        below=_BELOW,
        spacing=_SPACING,
        shared_yaxes=True,
        horizontal_spacing=0.08,
    )
    most = max(10, 300 // len(panels))
    seen: set[str] = set()
    for i, panel in enumerate(panels):
        where = {"row": i // columns + 1, "col": i % columns + 1}
        _draw(plot, panel, where, most, seen)
        plot.update_xaxes(title_text=short(panel.name, 28), **_axis(panel), **where)
    assert insight.objective is not None
    title = axis_title(insight.objective)
    title = title if height else title.replace(", ", ",<br>")
    rows = math.ceil(len(panels) / columns)
    plot.update_yaxes(title_text=title, row=(rows + 1) // 2, col=1)
    ends = [end for panel in panels for end in (*panel.low, *panel.high)]
    values = [t.value for t in insight.trials if t.outcome == "complete"]
    plot.update_yaxes(range=value_range(values, ends))
    return laid_out(plot, height=height, showlegend=True)


def _axis(panel: Slice) -> dict[str, Any]:
    if panel.kind == "choice":
        return {"type": "category"}
    if not panel.log:
        return {}
    is_narrow = panel.values[-1] < 10 * panel.values[0]
    return {"type": "log", "dtick": "D2" if is_narrow else 1, "exponentformat": "e"}


def _draw(  # type: ignore[no-untyped-def]
    plot, panel: Slice, where: dict[str, int], most: int, seen: set[str]
) -> None:
    choice = panel.kind == "choice"
    chosen = range(min(len(panel.values), _MOST_CHOICES) if choice else len(panel.values))
    xs: list[Any] = [_x(panel, panel.values[i]) for i in chosen]
    ends = (panel.low, panel.mean, panel.high)
    low, mean, high = (rounded([v[i] for i in chosen]) for v in ends)
    if choice:
        bars = {
            "type": "data",
            "symmetric": False,
            "array": rounded([panel.high[i] - panel.mean[i] for i in chosen], 3),
            "arrayminus": rounded([panel.mean[i] - panel.low[i] for i in chosen], 3),
        }
        looks: dict[str, Any] = {"mode": "markers", "error_y": bars}
    else:
        plot.add_scatter(
            x=[*xs, *xs[::-1]],
            y=[*high, *low[::-1]],
            fill="toself",
            fillcolor=BAND,
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            **_legend("95% interval", seen),
            **where,
        )
        looks = {"mode": "lines"}
    plot.add_scatter(
        x=xs,
        y=mean,
        line={"color": BLUE, "width": 2},
        marker={"color": BLUE, "symbol": "line-ew-open", "size": 14},
        **looks,
        **_legend("expected", seen),
        **where,
    )
    finished = [t for t in panel.trials if t.outcome in ("complete", "infeasible")]
    for outcome, trials in by_outcome(thinned(finished, most)).items():
        colour, symbol = SYMBOLS[outcome]
        plot.add_scatter(
            x=[_x(panel, t.params[panel.name]) for t in trials],
            y=rounded([t.value for t in trials]),
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 5, "opacity": 0.6},
            customdata=[t.number for t in trials],
            hovertemplate="trial %{customdata}: %{x}, %{y}<extra></extra>",
            **_legend(outcome, seen),
            **where,
        )
    held = _x(panel, panel.held)
    place = xs.index(held) if choice and held in xs else held
    plot.add_vline(x=place, line={"color": GREY, "dash": "dot"}, **where)


def _x(panel: Slice, value: Any) -> Any:
    return short(value, 12) if panel.kind == "choice" else rounded([value], 5)[0]


def _legend(name: str, seen: set[str]) -> dict[str, Any]:
    """Show a legend entry only the first time that a name occurs."""
    first = name not in seen
    seen.add(name)
    return {"name": name, "legendgroup": name, "showlegend": first}
