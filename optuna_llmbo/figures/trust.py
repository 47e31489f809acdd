"""Draw how far what was expected before any trial has been trusted, by trial."""

from __future__ import annotations

from optuna_llmbo.figures.figure import BLUE
from optuna_llmbo.figures.figure import Figure
from optuna_llmbo.figures.figure import graph_objects
from optuna_llmbo.figures.figure import GREY
from optuna_llmbo.figures.figure import laid_out
from optuna_llmbo.figures.figure import rounded
from optuna_llmbo.figures.figure import thinned
from optuna_llmbo.figures.figure import VERMILION
from optuna_llmbo.insight import Insight
from optuna_llmbo.study.trust import OVERRULED


CAPTION = (
    "The probability, whenever the model chose a trial, that values are better where the packs "
    "and the prior expect them. Dotted: before any trial. Below the dashed line they are "
    "overruled, from the red line on. Bad sign: a line that ends low while the best trial lies "
    "outside of the expected ranges: a prior of your own serves better next time."
)
_MOST = 200


def trust(insight: Insight) -> Figure | None:
    """Draw the figure; None if nothing was expected."""
    found = insight.trust
    if found is None:
        return None
    course = found.course
    plot = graph_objects().Figure()
    shown = thinned(list(zip(course.trials, course.values, strict=True)), _MOST)
    plot.add_scatter(
        x=[one.number for one, _ in shown],
        y=rounded([value for _, value in shown], 3),
        mode="lines+markers",
        line={"color": BLUE},
        marker={"size": 6},
        name="trust",
        hovertemplate="trial %{x}: %{y}<extra></extra>",
    )
    for height, dash, name in (
        (found.before, "dot", "before any trial"),
        (OVERRULED, "dash", f"overruled below {OVERRULED}"),
    ):
        plot.add_scatter(
            x=[course.trials[0].number, course.trials[-1].number],
            y=[height, height],
            mode="lines",
            line={"color": GREY, "dash": dash},
            name=name,
            hoverinfo="skip",
        )
    since = course.overruled_from
    if since is not None:
        plot.add_scatter(
            x=[since, since],
            y=[0.0, 1.0],
            mode="lines",
            line={"color": VERMILION},
            name=f"overruled from trial {since} on",
            hoverinfo="skip",
        )
    laid_out(
        plot,
        xaxis={"title": {"text": "trial"}},
        yaxis={"title": {"text": "trust in the knowledge"}, "range": [-0.03, 1.03]},
    )
    finding = f"{found.summary[0].upper()}{found.summary[1:]}."
    return Figure("llmbo-trust", "How far the knowledge is trusted", CAPTION, finding, plot)
