"""Draw what comes next, and why."""

from __future__ import annotations

from collections.abc import Mapping
import textwrap
from typing import Any

import numpy as np

from optuna_llmbo.figures.figure import BLUE
from optuna_llmbo.figures.figure import cut
from optuna_llmbo.figures.figure import Figure
from optuna_llmbo.figures.figure import graph_objects
from optuna_llmbo.figures.figure import GREEN
from optuna_llmbo.figures.figure import GREY
from optuna_llmbo.figures.figure import laid_out
from optuna_llmbo.figures.figure import ORANGE
from optuna_llmbo.figures.figure import params_text
from optuna_llmbo.figures.figure import PURPLE
from optuna_llmbo.figures.figure import rounded
from optuna_llmbo.figures.figure import short
from optuna_llmbo.insight import Insight


CAPTION = (
    "What would be tried next, and the next best that are unlike it. Above: what the model "
    "expects with the central 95% interval, and the best so far (dotted). Below: what raises "
    "or lowers each one's score against the mean of those shown, on a log scale. Bad sign: an "
    "interval that lies on the bad side of the dotted line, or a choice by prior knowledge "
    "alone late in a study."
)
_MOST_NAMED = 8
_TERMS = {"improvement": BLUE, "prior": ORANGE, "cost": PURPLE}


def upcoming(insight: Insight) -> Figure | None:
    """Draw the figure; None if there is no model to ask."""
    found, objective = insight.next, insight.objective
    if found is None or objective is None:
        return None
    go = graph_objects()
    from plotly.subplots import make_subplots

    candidates = [found.chosen, *found.runners_up]
    names = ["next", *(str(i + 2) for i in range(len(found.runners_up)))]
    texts = [params_text(c.params) for c in candidates]
    plot = make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.06)
    expected = [c.expected for c in candidates]
    plot.add_scatter(
        x=names,
        y=rounded([p.mean for p in expected]),
        error_y={
            "type": "data",
            "symmetric": False,
            "array": rounded([p.high - p.mean for p in expected], 3),
            "arrayminus": rounded([p.mean - p.low for p in expected], 3),
        },
        mode="markers",
        marker={"color": GREEN, "size": 9},
        name="expected, 95% interval",
        hovertext=texts,
        hoverinfo="text+y",
        row=1,
        col=1,
    )
    if insight.best_so_far is not None:
        best = rounded([insight.best_so_far.best[-1].value], 5)[0]
        plot.add_hline(y=best, line={"color": GREY, "dash": "dot"}, row=1, col=1)
    for name, colour in _TERMS.items():
        terms = np.array([c.terms[name] for c in candidates])
        heights = terms - terms.mean()
        if heights.any():
            plot.add_trace(
                go.Bar(
                    x=names,
                    y=rounded(heights.tolist(), 3),
                    marker={"color": colour},
                    name=name,
                    hovertext=texts,
                    hoverinfo="text+y+name",
                ),
                row=2,
                col=1,
            )
    laid_out(plot, barmode="relative")
    title = textwrap.wrap(short(objective.name, 36), 18)
    plot.update_yaxes(title_text="<br>".join(title), row=1)
    plot.update_yaxes(title_text="log score<br>(no unit)", row=2)
    plot.update_xaxes(type="category")
    plot.update_xaxes(title_text="candidate, the best score first", row=2)
    finding = f"Next: {_named(found.chosen.params)}. {found.text}"
    return Figure("llmbo-next", "What comes next, and why", CAPTION, finding, plot)


def _named(params: Mapping[str, Any]) -> str:
    named = [f"{cut(name, 30)} {cut(value)}" for name, value in params.items()]
    more = len(named) - _MOST_NAMED
    return ", ".join([*named[:_MOST_NAMED], *([f"and {more} more"] if more > 0 else [])])
