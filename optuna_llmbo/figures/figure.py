"""A figure with its caption, and the look that all figures share."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import math
import textwrap
from typing import Any
from typing import TYPE_CHECKING

import numpy as np

from optuna_llmbo.errors import InputError
from optuna_llmbo.insight.objective import Objective
from optuna_llmbo.study.outcome import Outcome
from optuna_llmbo.study.trial_facts import TrialFacts


if TYPE_CHECKING:
    import plotly.graph_objects as go


# Colours of Okabe and Ito that are visible on light and dark backgrounds.
BLUE, ORANGE, GREEN, SKY, VERMILION, PURPLE, GREY = (
    "#0080c5",
    "#e69f00",
    "#009e73",
    "#56b4e9",
    "#d55e00",
    "#cc79a7",
    "#8c8c8c",
)
BAND = "rgba(0, 128, 197, 0.22)"
_GRID = "rgba(128, 128, 128, 0.25)"

SYMBOLS: Mapping[Outcome, tuple[str, str]] = {
    "complete": (BLUE, "circle"),
    "pruned": (ORANGE, "triangle-down"),
    "infeasible": (VERMILION, "x"),
    "failed": (VERMILION, "cross"),
    "interrupted": (GREY, "diamond-open"),
    "running": (GREEN, "circle-open"),
}
"""Colour and marker for each outcome."""

_WORST_TO_BEST = [[0.0, BLUE], [0.5, "#a6a6a6"], [1.0, ORANGE]]

_WRAP = 72
"""Characters per line of a caption in the plot: 360 pixels of small print."""
_LINE = 13
"""Height of a caption line in pixels."""
_TITLE = 26
"""Height of the title in pixels."""
_PARAMS_SHOWN = 10
_MARGIN = 0.08
_QUANTILES = (0.05, 0.95)


@dataclass(frozen=True)
class Figure:
    """A plot and what a reader needs to know about it."""

    name: str
    """A fixed name, usable as an element's id, such as "llmbo-map"."""
    title: str
    caption: str
    """How to read the figure and which signs are bad; the same for every study."""
    finding: str
    """What it shows about this study, in a sentence or two of plain text; may be empty."""
    plot: go.Figure
    """Without title and caption, on a transparent background; the font colour is not set."""
    small: go.Figure | None = None
    """Replacement for the plot in `alone`, if the plot is taller than a dashboard card."""

    def alone(self) -> go.Figure:
        """Copy the plot with its title above and its finding and caption below, for places that
        show only the plot, such as a dashboard card, 450 pixels high."""
        plot = graph_objects().Figure(self.plot if self.small is None else self.small)
        left, bottom, top = plot.layout.margin.l, plot.layout.margin.b, plot.layout.margin.t
        lines = [f"<b>{_escaped(line)}</b>" for line in textwrap.wrap(self.finding, _WRAP - 6)]
        lines += textwrap.wrap(self.caption, _WRAP)
        below = _LINE * len(lines) + 10
        plot.update_layout(
            title={"text": self.title, "x": 0.02, "y": 0.98, "yanchor": "top"},
            title_font={"size": 15},
            margin={"t": top + _TITLE, "b": bottom + below},
        )
        plot.add_annotation(
            text="<br>".join(lines),
            font={"size": 10},
            align="left",
            showarrow=False,
            **{"xref": "paper", "x": 0, "xanchor": "left", "xshift": 8 - left},
            **{"yref": "paper", "y": 0, "yanchor": "top", "yshift": -bottom},
        )
        return plot


def graph_objects() -> Any:
    """Import `plotly.graph_objects`.

    Raises:
        InputError: if plotly is not installed.
    """
    try:
        import plotly.graph_objects
    except ImportError as error:
        raise InputError(
            "the figures need plotly: pip install 'optuna-llmbo[report]', or the extra dashboard."
        ) from error
    return plotly.graph_objects


def laid_out(plot: go.Figure, **layout: Any) -> go.Figure:
    """Apply the layout that all figures share to a plot, in place, and return it."""
    plot.update_layout(
        {
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "margin": {"l": 62, "r": 14, "t": 44, "b": 46},
            "legend": {
                "orientation": "h",
                "x": 0,
                "y": 1,
                "yanchor": "bottom",
                "font": {"size": 10},
                "bgcolor": "rgba(0,0,0,0)",
            },
            "font": {"size": 11},
            "hoverlabel": {"align": "left", "font": {"size": 11}},
            **layout,
        }
    )
    plot.layout.template = graph_objects().layout.Template()  # plotly's default template is 7 kB
    lines = {"gridcolor": _GRID, "zerolinecolor": _GRID, "linecolor": GREY, "showline": True}
    titles = {"title_standoff": 6, "title_font": {"size": 11}}
    plot.update_xaxes(**lines, **titles)
    plot.update_yaxes(**lines, **titles)
    return plot


def small_multiples(
    n: int, columns: int, *, height: int | None, below: int, spacing: float, **options: Any
) -> go.Figure:
    """Make a plot of n empty panels in rows of at most so many columns.

    Args:
        n: number of panels.
        columns: most panels in a row.
        height: of the plot, in pixels; None: it is sized for a dashboard card.
        below: pixels between rows, for titles of axes.
        spacing: the same as a share of the height, where that is not known.
        options: further arguments of plotly's `make_subplots`.
    """
    graph_objects()
    from plotly.subplots import make_subplots

    columns = min(columns, n)
    rows = math.ceil(n / columns)
    return make_subplots(
        rows,
        columns,
        specs=[
            [{} if row * columns + column < n else None for column in range(columns)]
            for row in range(rows)
        ],
        vertical_spacing=(below / height if height else spacing) if rows > 1 else 0,
        **options,
    )


def axis_title(objective: Objective) -> str:
    """Return the objective's name and direction."""
    return f"{short(objective.name, 40)}, {objective.direction}"


def expectation_colours(objective: Objective, means: Sequence[float]) -> dict[str, Any]:
    """Build the colour axis of expected values, from the worst to the best of them."""
    return {
        "cmin": rounded([min(means)])[0],
        "cmax": rounded([max(means)])[0],
        "colorscale": _WORST_TO_BEST,
        "reversescale": objective.sign < 0,
        "colorbar": {
            "title": {
                "text": f"expected {short(objective.name, 30)}",
                "side": "right",
                "font": {"size": 11},
            },
            "thickness": 8,
            "tickformat": ".3~g",
        },
    }


def rounded(values: Sequence[float | None], digits: int = 4) -> list[float | None]:
    """Round to significant digits to keep the JSON small; None for what cannot be drawn."""
    return [
        None if v is None or not math.isfinite(v) else float(f"{v:.{digits}g}") for v in values
    ]


def value_range(values: Sequence[float | None], shown: Sequence[float | None]) -> list[float]:
    """Compute the range of a value axis, so that one extreme value does not flatten the rest.

    The range covers all of `shown` and the central 90% of `values`.

    Args:
        values: the values; None and values that are not finite are ignored.
        shown: values that must be visible; at least one is finite.
    """
    central = [v for v in rounded(values, 9) if v is not None]
    ends = [v for v in rounded(shown, 9) if v is not None]
    if central:
        ends += map(float, np.quantile(central, _QUANTILES))
    low, high = min(ends), max(ends)
    margin = _MARGIN * (high - low) or _MARGIN * abs(high) or 1.0
    return [float(f"{end:.6g}") for end in (low - margin, high + margin)]


def short(value: Any, most: int = 20) -> str:
    """Format a parameter's value in a few characters, safe to show as HTML."""
    return _escaped(cut(value, most))


def cut(value: Any, most: int = 20) -> str:
    """Format a parameter's value in a few characters of plain text, on one line."""
    text = f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _escaped(text: str) -> str:
    text = text.replace("%{", "% {")  # plotly's templates would substitute it
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def hovering(trials: Sequence[TrialFacts], *more: str) -> dict[str, Any]:
    """Build a trace's hover arguments: each trial's number, outcome, value and parameters.

    Args:
        trials: the trials that the trace draws.
        more: further lines, as plotly templates, before the parameters.
    """
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    shown = names[:_PARAMS_SHOWN]
    lines = ["trial %{customdata[0]}", "value %{customdata[1]}", *more]
    lines += [f"{short(name, 30)}: %{{customdata[{i + 2}]}}" for i, name in enumerate(shown)]
    if len(names) > len(shown):
        lines.append(f"and {len(names) - len(shown)} more")
    return {
        "customdata": [[_heading(t), short(t.value), *_values(t, shown)] for t in trials],
        "hovertemplate": "<br>".join(lines) + "<extra></extra>",
    }


def _heading(trial: TrialFacts) -> str:
    chosen_by = f" ({trial.chosen_by})" if trial.chosen_by else ""
    return f"{trial.number}, {trial.outcome}{chosen_by}"


def _values(trial: TrialFacts, names: Sequence[str]) -> list[str]:
    return [short(trial.params[name], 12) if name in trial.params else "-" for name in names]


def params_text(params: Mapping[str, Any]) -> str:
    """Format the first few parameters, one per line."""
    shown = [f"{short(n, 30)}: {short(v)}" for n, v in list(params.items())[:_PARAMS_SHOWN]]
    left = len(params) - len(shown)
    return "<br>".join([*shown, f"and {left} more"] if left else shown)


def thinned(items: Sequence[Any], most: int) -> list[Any]:
    """Return at most `most` items, evenly spaced and including the last."""
    if len(items) <= most:
        return list(items)
    step = len(items) / most
    return [items[len(items) - 1 - int(i * step)] for i in range(most)][::-1]


def by_outcome(trials: Sequence[TrialFacts]) -> dict[Outcome, list[TrialFacts]]:
    """Group the trials by outcome, in the order of `SYMBOLS`."""
    groups = {outcome: [t for t in trials if t.outcome == outcome] for outcome in SYMBOLS}
    return {outcome: group for outcome, group in groups.items() if group}
