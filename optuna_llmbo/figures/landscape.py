"""Draw the map of the configurations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna_llmbo.figures.figure import by_outcome
from optuna_llmbo.figures.figure import expectation_colours
from optuna_llmbo.figures.figure import Figure
from optuna_llmbo.figures.figure import graph_objects
from optuna_llmbo.figures.figure import GREY
from optuna_llmbo.figures.figure import hovering
from optuna_llmbo.figures.figure import laid_out
from optuna_llmbo.figures.figure import rounded
from optuna_llmbo.figures.figure import SYMBOLS
from optuna_llmbo.figures.figure import thinned
from optuna_llmbo.figures.figure import VERMILION
from optuna_llmbo.insight import Insight
from optuna_llmbo.insight.embedding import EmbeddingMap
from optuna_llmbo.insight.embedding import Place
from optuna_llmbo.study.trial_facts import TrialFacts


CAPTION = (
    "Configurations that the model takes to be alike are near each other; the colour is what "
    "it expects. Small dots are untried, larger marks tried, the star is the best so far, "
    "diamonds come next. The axes have no unit, and say less the lower their share. Bad sign: "
    "all trials in one corner while other places look as good, or a star among much worse "
    "colours."
)
_COLOUR = "%{marker.color}"
_MOST = 120


def landscape(insight: Insight) -> Figure | None:
    """Draw the figure; None if there is no model to ask."""
    found, objective = insight.map, insight.objective
    if found is None or objective is None:
        return None
    plot = graph_objects().Figure()
    _add(plot, found.candidates, name="untried", size=4, opacity=0.55, showlegend=False)
    shown = thinned(found.tried, _MOST)
    if found.best is not None and all(t.number != found.best for t, _ in shown):
        shown += [(t, place) for t, place in found.tried if t.number == found.best]
    for outcome in by_outcome([t for t, _ in shown]):
        some = [(t, place) for t, place in shown if t.outcome == outcome]
        _add_tried(plot, some, name=outcome, size=9, symbol=SYMBOLS[outcome][1], line=GREY)
    _add(plot, found.next, name="next", size=11, symbol="diamond", line=VERMILION)
    best = [(t, place) for t, place in shown if t.number == found.best]
    _add_tried(plot, best, name="best so far", size=17, symbol="star", line=VERMILION)
    means = [p.mean for p in _places(found)]
    by = "numbers and text" if found.has_text else "numbers"
    finding = f"The two axes hold {found.share:.0%} of the variance. The distance uses {by}."
    laid_out(
        plot,
        xaxis={"title": {"text": "first axis, no unit"}, "showticklabels": False},
        yaxis={"title": {"text": "second axis, no unit"}, "showticklabels": False},
        margin={"l": 30, "r": 14, "t": 44, "b": 34},
        coloraxis=expectation_colours(objective, means),
    )
    return Figure("llmbo-map", "Map of the configurations", CAPTION, finding, plot)


def _places(found: EmbeddingMap) -> list[Place]:
    tried: list[tuple[TrialFacts, Place]] = list(found.tried)
    return [*found.candidates, *found.next, *(place for _, place in tried)]


def _add_tried(plot: Any, pairs: Sequence[tuple[TrialFacts, Place]], **looks: Any) -> None:
    if pairs:
        more = hovering([t for t, _ in pairs], f"expected {_COLOUR}")
        _add(plot, [place for _, place in pairs], **looks, **more)


def _add(
    plot: Any,
    places: Sequence[Place],
    *,
    size: int,
    symbol: str = "circle",
    opacity: float = 1.0,
    line: str | None = None,
    **more: Any,
) -> None:
    if not places:
        return
    marker = {
        "size": size,
        "symbol": symbol,
        "opacity": opacity,
        "color": rounded([p.mean for p in places]),
        "coloraxis": "coloraxis",
        "line": {"width": 1 if line else 0, "color": line},
    }
    trace = {"hovertemplate": f"{more['name']}, expected {_COLOUR}<extra></extra>", **more}
    plot.add_scatter(
        x=rounded([p.x for p in places], 3),
        y=rounded([p.y for p in places], 3),
        mode="markers",
        marker=marker,
        **trace,
    )
