"""Draw the figures that a study has data for, in reading order."""

from __future__ import annotations

from collections.abc import Callable

from optuna_llmbo.figures.best_so_far import best_so_far
from optuna_llmbo.figures.calibration import calibration
from optuna_llmbo.figures.choices import choices
from optuna_llmbo.figures.figure import Figure
from optuna_llmbo.figures.figure import graph_objects
from optuna_llmbo.figures.importance import importance
from optuna_llmbo.figures.landscape import landscape
from optuna_llmbo.figures.proxy import proxy
from optuna_llmbo.figures.slices import slices
from optuna_llmbo.figures.trust import trust
from optuna_llmbo.figures.upcoming import upcoming
from optuna_llmbo.insight import Insight


_FIGURES: tuple[Callable[[Insight], Figure | None], ...] = (
    best_so_far,
    upcoming,
    slices,
    choices,
    landscape,
    calibration,
    importance,
    trust,
    proxy,
)


def draw(insight: Insight) -> list[Figure]:
    """Draw every figure that has something to show.

    Args:
        insight: as returned by `insight.examine`.

    Raises:
        InputError: if plotly is not installed.
    """
    graph_objects()
    return [figure for make in _FIGURES if (figure := make(insight)) is not None]
