"""The map of the configurations."""

from __future__ import annotations

from optuna_llmbo.figures.figure import by_state
from optuna_llmbo.figures.figure import Figure
from optuna_llmbo.figures.figure import graph_objects
from optuna_llmbo.figures.figure import GREY
from optuna_llmbo.figures.figure import hover
from optuna_llmbo.figures.figure import laid_out
from optuna_llmbo.figures.figure import rounded
from optuna_llmbo.figures.figure import short
from optuna_llmbo.figures.figure import SYMBOLS
from optuna_llmbo.figures.figure import thinned
from optuna_llmbo.figures.figure import VERMILION
from optuna_llmbo.insight import Insight
from optuna_llmbo.insight.embedding import EmbeddingMap
from optuna_llmbo.insight.embedding import Place
from optuna_llmbo.insight.tried import Tried


CAPTION = (
    "Configurations that the model takes to be alike are near each other; the colour is what "
    "it expects. Small dots are untried, larger marks tried, the star is the best so far, "
    "diamonds come next. The axes have no unit, and say less the lower their share. Alarming: "
    "all trials in one corner while other places look as good, or a star among much worse "
    "colours."
)
_MOST = 120


def landscape(insight: Insight) -> Figure | None:
    """None if the model could not be asked."""
    found, objective = insight.map, insight.objective
    if found is None or objective is None:
        return None
    plot = graph_objects().Figure()
    _add(plot, [("", p) for p in found.candidates], name="untried", size=4, opacity=0.55)
    shown = thinned(found.tried, _MOST)
    if found.best is not None and all(t.number != found.best for t, _ in shown):
        shown += [(t, place) for t, place in found.tried if t.number == found.best]
    for state in by_state([t for t, _ in shown]):
        some = [(hover(t), place) for t, place in shown if t.state == state]
        _add(plot, some, name=state, size=9, symbol=SYMBOLS[state][1], line=GREY)
    best = [(hover(t), place) for t, place in shown if t.number == found.best]
    _add(plot, best, name="best so far", size=16, symbol="star", line=VERMILION)
    coming = [(f"next, rank {i + 1}", place) for i, place in enumerate(found.next)]
    _add(plot, coming, name="next", size=11, symbol="diamond", line=VERMILION)
    means = [p.mean for p in _places(found)]
    by = "numbers and text" if found.has_text else "numbers"
    finding = f"The two axes hold {found.share:.0%} of the variance. The distance is of {by}."
    laid_out(
        plot,
        xaxis={"title": {"text": "first axis, no unit"}, "showticklabels": False},
        yaxis={"title": {"text": "second axis, no unit"}, "showticklabels": False},
        margin={"l": 30, "r": 14, "t": 34, "b": 40},
        coloraxis={
            "cmin": rounded([min(means)])[0],
            "cmax": rounded([max(means)])[0],
            "colorscale": "Cividis",
            "reversescale": objective.sign < 0,
            "colorbar": {
                "title": {"text": f"expected {short(objective.name, 30)}", "side": "right"},
                "thickness": 10,
                "tickformat": ".3~g",
            },
        },
    )
    return Figure("llmbo-map", "Map of the configurations", CAPTION, finding, plot)


def _places(found: EmbeddingMap) -> list[Place]:
    tried: list[tuple[Tried, Place]] = list(found.tried)
    return [*found.candidates, *found.next, *(place for _, place in tried)]


def _add(  # type: ignore[no-untyped-def]
    plot,
    places: list[tuple[str, Place]],
    *,
    name: str,
    size: int,
    symbol: str = "circle",
    opacity: float = 1.0,
    line: str | None = None,
) -> None:
    if not places:
        return
    texts = [text for text, _ in places]
    plot.add_scatter(
        x=rounded([p.x for _, p in places], 3),
        y=rounded([p.y for _, p in places], 3),
        mode="markers",
        name=name,
        marker={
            "size": size,
            "symbol": symbol,
            "opacity": opacity,
            "color": rounded([p.mean for _, p in places]),
            "coloraxis": "coloraxis",
            "line": {"width": 1 if line else 0, "color": line},
        },
        hovertext=texts if any(texts) else None,
        hovertemplate=("%{hovertext}<br>" if any(texts) else "")
        + "expected %{marker.color}<extra></extra>",
    )
