"""Draw losses on a part of the data against losses on all of it."""

from __future__ import annotations

import math

from optuna_llmbo.figures.figure import BLUE
from optuna_llmbo.figures.figure import Figure
from optuna_llmbo.figures.figure import graph_objects
from optuna_llmbo.figures.figure import GREEN
from optuna_llmbo.figures.figure import GREY
from optuna_llmbo.figures.figure import laid_out
from optuna_llmbo.figures.figure import ORANGE
from optuna_llmbo.figures.figure import params_text
from optuna_llmbo.figures.figure import PURPLE
from optuna_llmbo.figures.figure import rounded
from optuna_llmbo.figures.figure import VERMILION
from optuna_llmbo.insight import Insight


CAPTION = (
    "Each mark is a configuration, trained on a part of the data and on all of it. A part "
    "serves the search if its marks rise from left to right: rho is Spearman's correlation of "
    "the ranks and r is Pearson's, both among runs that end below the base model's loss "
    "(dotted). Diverged runs are left out. Bad sign: rho below 0.8 for the part that is "
    "searched on."
)
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, VERMILION)
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x")
_MOST = 60
"""Largest number of configurations drawn."""


def proxy(insight: Insight) -> Figure | None:
    """Draw the figure; None without a proxy check."""
    check = insight.proxy
    if check is None:
        return None
    plot = graph_objects().Figure()
    full = check.losses[-1]
    for i, (agreement, here) in enumerate(zip(check.agreements, check.losses, strict=False)):
        drawn = [
            j
            for j in range(min(len(full), _MOST))
            if math.isfinite(here[j]) and math.isfinite(full[j])
        ]
        rho, r = (_number(v) for v in (agreement.spearman_live, agreement.pearson_live))
        plot.add_scatter(
            x=rounded([here[j] for j in drawn]),
            y=rounded([full[j] for j in drawn]),
            mode="markers",
            marker={
                "color": _COLOURS[i % len(_COLOURS)],
                "symbol": _SYMBOLS[i % len(_SYMBOLS)],
                "size": 8,
            },
            name=f"{agreement.fraction:.3g}: rho {rho}, r {r}",
            hovertext=[f"configuration {j}<br>{params_text(check.params[j])}" for j in drawn],
            hoverinfo="text+x+y",
        )
    plot.add_hline(y=check.base_loss, line={"color": GREY, "dash": "dot"})
    laid_out(
        plot,
        xaxis={"title": {"text": "validation loss after the part (nats per response token)"}},
        yaxis={"title": {"text": "after all data (nats per response token)"}},
    )
    fraction = check.recommended
    finding = (
        "None of these parts ranks the configurations well enough."
        if fraction is None
        else f"The smallest part that ranks well enough is {fraction:g} of the data."
    )
    return Figure("llmbo-proxy", "A part of the data against all of it", CAPTION, finding, plot)


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "unknown"
