"""Draw predicted against observed values."""

from __future__ import annotations

from optuna_llmbo.figures.figure import BLUE
from optuna_llmbo.figures.figure import Figure
from optuna_llmbo.figures.figure import graph_objects
from optuna_llmbo.figures.figure import GREY
from optuna_llmbo.figures.figure import hovering
from optuna_llmbo.figures.figure import laid_out
from optuna_llmbo.figures.figure import rounded
from optuna_llmbo.figures.figure import short
from optuna_llmbo.figures.figure import thinned
from optuna_llmbo.figures.figure import VERMILION
from optuna_llmbo.insight import Insight
from optuna_llmbo.insight.calibration import Coverage


CAPTION = (
    "Each mark is a trial that the model chose: what was expected before it ran, with the "
    "central 68% interval, and what came out. On the dotted line both agree. Bad sign: a "
    "share outside its range in brackets, which a calibrated model leaves one time in twenty, "
    "or marks that all lie on one side."
)
_MOST = 150


def calibration(insight: Insight) -> Figure | None:
    """Draw the figure; None if no trial recorded what was expected of it."""
    found, objective = insight.calibration, insight.objective
    if found is None or objective is None:
        return None
    go = graph_objects()
    plot = go.Figure()
    pairs = thinned(found.trials, _MOST)
    ends = rounded([*(p.mean for p in pairs), *(p.observed for p in pairs)])
    known = [end for end in ends if end is not None]
    line = [min(known), max(known)]
    plot.add_scatter(
        x=line,
        y=line,
        mode="lines",
        line={"color": GREY, "dash": "dot"},
        name="as expected",
        hoverinfo="skip",
    )
    for inside, colour in ((True, BLUE), (False, VERMILION)):
        some = [p for p in pairs if p.is_within(0.95) == inside]
        plot.add_scatter(
            x=rounded([p.mean for p in some]),
            y=rounded([p.observed for p in some]),
            error_x={
                "type": "data",
                "array": rounded([p.standard_deviation for p in some], 3),
                "thickness": 1,
                "width": 0,
            },
            mode="markers",
            marker={"color": colour, "size": 7, "symbol": "circle" if inside else "x"},
            name="within 95%" if inside else "outside",
            **hovering([p.trial for p in some], "expected %{x} ± %{error_x.array}"),
            visible=bool(some),
        )
    name = short(objective.name, 40)
    laid_out(
        plot,
        xaxis={"title": {"text": f"expected {name}"}},
        yaxis={"title": {"text": f"observed {name}"}},
    )
    finding = " ".join(_said(coverage, objective.sign) for coverage in found.coverages[::-1])
    return Figure("llmbo-calibration", "Expected and observed", CAPTION, finding, plot)


def _said(coverage: Coverage, sign: float) -> str:
    """How many trials ended in the interval, and on which side the others."""
    better, worse = coverage.above, coverage.below
    if sign < 0:
        better, worse = worse, better
    n = coverage.inside + better + worse
    return (
        f"{coverage.level:.0%} interval: {coverage.inside} of {n} trials ({coverage.share:.0%}) "
        f"[{coverage.low:.0%} to {coverage.high:.0%}], {better} better and {worse} worse than it."
    )
