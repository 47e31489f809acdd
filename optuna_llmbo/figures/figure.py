"""A figure with its caption, and what all figures look like."""

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


# Okabe and Ito's colours that are seen on light and on dark grounds.
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
"""Colour and marker of each state."""

_WRAP = 72
"""Characters a line of a caption in the plot: 360 pixels of small print."""
_LINE = 13
"""Pixels a line of it."""
_TITLE = 26
"""Pixels of the title."""
_PARAMS_SHOWN = 10
_MARGIN = 0.08
_QUANTILES = (0.05, 0.95)


@dataclass(frozen=True)
class Figure:
    """A plot and what a reader needs to know of it."""

    name: str
    """Fixed, fit for an element's id, such as "llmbo-map"."""
    title: str
    caption: str
    """Plain sentences: how to read it, and which signs are bad; the same for every study."""
    finding: str
    """What it shows of this study, in a sentence or two; may be empty."""
    plot: go.Figure
    """Without title and caption, on a transparent ground; the fonts' colour is left open."""
    small: go.Figure | None = None
    """What `alone` shows instead, where the plot is higher than a card of the dashboard."""

    def alone(self) -> go.Figure:
        """A copy that carries the title above it, and finding and caption beneath, for where
        nothing else does, such as a card of the dashboard, 450 pixels high."""
        plot = graph_objects().Figure(self.plot if self.small is None else self.small)
        left, bottom, top = plot.layout.margin.l, plot.layout.margin.b, plot.layout.margin.t
        lines = [f"<b>{line}</b>" for line in textwrap.wrap(self.finding, _WRAP - 6)]
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
    """`plotly.graph_objects`.

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
    """The plot, changed in place, with what all figures have in common."""
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
    plot.layout.template = graph_objects().layout.Template()  # plotly's own is 7 kB
    lines = {"gridcolor": _GRID, "zerolinecolor": _GRID, "linecolor": GREY, "showline": True}
    titles = {"title_standoff": 6, "title_font": {"size": 11}}
    plot.update_xaxes(**lines, **titles)
    plot.update_yaxes(**lines, **titles)
    return plot


def axis_title(objective: Objective) -> str:
    """The objective's name and which values are good."""
    return f"{short(objective.name, 40)}, {objective.direction}"


def rounded(values: Sequence[float | None], digits: int = 4) -> list[float | None]:
    """Numbers with so many digits, None for what cannot be drawn: small JSON."""
    return [
        None if v is None or not math.isfinite(v) else float(f"{v:.{digits}g}") for v in values
    ]


def value_range(values: Sequence[float | None], shown: Sequence[float | None]) -> list[float]:
    """The range of a value axis: all that must be shown, and the central 90% of the values, so
    that one run that went astray does not press all others flat.

    Args:
        values: may hold None and what is not finite, which do not count.
        shown: the same, to be shown whatever the others are; one is finite at least.
    """
    central = [v for v in rounded(values, 9) if v is not None]
    ends = [v for v in rounded(shown, 9) if v is not None]
    if central:
        ends += map(float, np.quantile(central, _QUANTILES))
    low, high = min(ends), max(ends)
    margin = _MARGIN * (high - low) or _MARGIN * abs(high) or 1.0
    return [float(f"{end:.6g}") for end in (low - margin, high + margin)]


def short(value: Any, most: int = 20) -> str:
    """A parameter's value in a few characters, safe to show as HTML."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = text if len(text) <= most else text[: most - 1] + "…"
    text = text.replace("%{", "% {")  # which plotly's templates would fill in
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def hovering(trials: Sequence[TrialFacts], *more: str) -> dict[str, Any]:
    """A trace's arguments: each trial's number, state, value and parameters, a line each.

    Args:
        trials: the trace's points.
        more: lines of plotly's templates that come before the parameters.
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
    """Parameters, a line each, the first few."""
    shown = [f"{short(n, 30)}: {short(v)}" for n, v in list(params.items())[:_PARAMS_SHOWN]]
    left = len(params) - len(shown)
    return "<br>".join([*shown, f"and {left} more"] if left else shown)


def thinned(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of them, evenly, the last among them."""
    if len(items) <= most:
        return list(items)
    step = len(items) / most
    return [items[len(items) - 1 - int(i * step)] for i in range(most)][::-1]


def by_state(trials: Sequence[TrialFacts]) -> dict[Outcome, list[TrialFacts]]:
    """The trials by state, in the order of `SYMBOLS`."""
    groups = {state: [t for t in trials if t.outcome == state] for state in SYMBOLS}
    return {state: group for state, group in groups.items() if group}
