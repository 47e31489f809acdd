"""Draw the best value so far by trial, with the default configuration's for comparison."""

from __future__ import annotations

from optuna_llmbo.figures.figure import axis_title
from optuna_llmbo.figures.figure import BLUE
from optuna_llmbo.figures.figure import by_outcome
from optuna_llmbo.figures.figure import Figure
from optuna_llmbo.figures.figure import graph_objects
from optuna_llmbo.figures.figure import GREY
from optuna_llmbo.figures.figure import hovering
from optuna_llmbo.figures.figure import laid_out
from optuna_llmbo.figures.figure import rounded
from optuna_llmbo.figures.figure import SYMBOLS
from optuna_llmbo.figures.figure import thinned
from optuna_llmbo.figures.figure import value_range
from optuna_llmbo.insight import Insight
from optuna_llmbo.insight.best_so_far import BestSoFar


CAPTION = (
    "Each mark is a trial; the line is the best complete and feasible value so far, the "
    "dotted line the default configuration. Trials without a value stand on the lower edge; "
    "values far off may be cut off. Bad sign: no step for half of the trials, many failed or "
    "infeasible trials, or a line that never leaves the default."
)
_MOST = 200


def best_so_far(insight: Insight) -> Figure | None:
    """Draw the figure; None if no trial is complete."""
    so_far, objective = insight.best_so_far, insight.objective
    if so_far is None or objective is None:
        return None
    go = graph_objects()
    plot = go.Figure()
    drawn = [t for t in insight.trials if t.outcome != "running"]
    last = max(t.number for t in drawn)
    for outcome, trials in by_outcome(thinned(drawn, _MOST)).items():
        colour, symbol = SYMBOLS[outcome]
        for has_value in (True, False):
            some = [t for t in trials if (rounded([t.value])[0] is not None) == has_value]
            plot.add_scatter(
                x=[t.number for t in some],
                y=rounded([t.value for t in some], 5) if has_value else [0.0] * len(some),
                yaxis="y" if has_value else "y2",
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 7, "opacity": 0.75},
                name=f"{outcome} ({so_far.counts[outcome]})",
                legendgroup=outcome,
                showlegend=bool(some) and (has_value or all(t.value is None for t in trials)),
                **hovering(some),
                visible=bool(some),
                cliponaxis=False,
            )
    best = thinned(so_far.best, _MOST)
    plot.add_scatter(
        x=[*(t.number for t in best), last],
        y=rounded([*(t.value for t in best), best[-1].value], 5),
        mode="lines",
        line={"shape": "hv", "color": BLUE, "width": 2},
        name="best so far",
        hoverinfo="skip",
    )
    default = so_far.default
    if default is not None:
        plot.add_scatter(
            x=[min(t.number for t in drawn), last],
            y=rounded([default.value] * 2, 5),
            mode="lines",
            line={"dash": "dot", "color": GREY, "width": 2},
            name="default",
            hoverinfo="skip",
        )
    must = [t.value for t in (best[-1], default) if t is not None]
    laid_out(
        plot,
        xaxis={"title": {"text": "trial"}},
        yaxis={
            "title": {"text": axis_title(objective)},
            "range": value_range([t.value for t in drawn], must),
        },
        yaxis2={"overlaying": "y", "range": [0, 1], "visible": False},
    )
    return Figure("llmbo-best-so-far", "Best so far", CAPTION, _finding(so_far), plot)


def _finding(so_far: BestSoFar) -> str:
    best = so_far.best[-1]
    said = f"The best is {best.value:.5g}, of trial {best.number}"
    if so_far.default is None:
        return f"{said}."
    return (
        f"{said}: a gain of {so_far.gain:.3g} over the default configuration, "
        f"{so_far.default.value:.5g}."
    )
