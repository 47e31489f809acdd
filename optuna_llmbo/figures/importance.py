"""Draw how much the model relies on each view, over the study."""

from __future__ import annotations

from optuna_llmbo.figures.figure import BLUE
from optuna_llmbo.figures.figure import Figure
from optuna_llmbo.figures.figure import graph_objects
from optuna_llmbo.figures.figure import laid_out
from optuna_llmbo.figures.figure import ORANGE
from optuna_llmbo.figures.figure import PURPLE
from optuna_llmbo.figures.figure import rounded
from optuna_llmbo.insight import Insight


CAPTION = (
    "How much the model's expectation depends on the hyperparameters as they are, on the "
    "quantities that knowledge derives from them, and on the text, when fitted to the first "
    "trials, to more, and to all: 0 is not at all. These views are functions of each other, "
    "so shares need not add up to 1. Bad sign: shares that still jump at the end, or all at "
    "0, as then the model sees no differences."
)
_LINES = {
    "hyperparameters": (BLUE, "circle"),
    "derived": (ORANGE, "square"),
    "text": (PURPLE, "diamond"),
}


def importance(insight: Insight) -> Figure | None:
    """Draw the figure; None if there are too few trials."""
    found = insight.importance
    if found is None or not found.n_trials:
        return None
    plot = graph_objects().Figure()
    for name, shares in found.shares.items():
        colour, symbol = _LINES[name]
        plot.add_scatter(
            x=list(found.n_trials),
            y=rounded(shares, 3),
            mode="lines+markers",
            line={"color": colour},
            marker={"symbol": symbol, "size": 8},
            name=name,
        )
    laid_out(
        plot,
        xaxis={"title": {"text": "observed trials that the model is fitted to"}},
        yaxis={"title": {"text": "share of the variance"}, "rangemode": "tozero"},
    )
    latest = ", ".join(f"{name} {shares[-1]:.2f}" for name, shares in found.shares.items())
    finding = f"With all {found.n_trials[-1]} observed trials: {latest}."
    return Figure("llmbo-importance", "What the model goes by", CAPTION, finding, plot)
