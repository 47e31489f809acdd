"""Make one fit of a variant, on one split of a task, and record its measures."""

from __future__ import annotations

from dataclasses import dataclass
import time
import traceback
from typing import Any

import numpy as np

from benchmarks.prediction import measures
from benchmarks.prediction import problems
from benchmarks.prediction.fit import fit
from benchmarks.prediction.variants import VARIANTS
from benchmarks.race.study import one_thread
from optuna_llmbo.surrogate.targets import Scale


MEASURES = ("spearman", "nlpd", "percentile", "training_nlpd", "left_out_nlpd")


@dataclass(frozen=True)
class Plan:
    """A fit to make."""

    method: str
    """The variant's name; each has a journal of its own."""
    task: str
    n_observed: int
    split: int

    @property
    def key(self) -> tuple[str, str, int, int]:
        """Identity of the fit: two results of it have the same key."""
        return (self.method, self.task, self.n_observed, self.split)


def run(plan: Plan, embedding: np.ndarray | None) -> dict[str, Any]:
    """Make a fit and measure it.

    Args:
        plan: the fit to make.
        embedding: embeddings of the task's configurations, as for `fit`.

    Returns:
        The plan's fields; `MEASURES`, None where the fit failed; `moved`, whether training has
        changed the text view; `total_seconds`; `error`, the traceback, or None.
    """
    begun = time.perf_counter()
    one_thread()
    record: dict[str, Any] = {**vars(plan), **dict.fromkeys(MEASURES), "moved": None}
    record["error"] = None
    try:
        record |= _measured(plan, embedding)
    except Exception:  # a failure is a result too
        record["error"] = traceback.format_exc()
    return record | {"total_seconds": round(time.perf_counter() - begun, 3)}


def _measured(plan: Plan, embedding: np.ndarray | None) -> dict[str, Any]:
    variant, problem = VARIANTS[plan.method], problems.load(plan.task)
    observed, others = problems.split(plan.n_observed, plan.split)
    values = problem.values[observed]
    scores = Scale.of(values, variant.transform)
    # Targets below the fence lie at the lowest knot.
    fitted = fit(variant, problem, observed, others, scores.scores(values), embedding)
    mean, deviation = fitted.predict()
    judged = measures.held_out(mean, deviation, problem.values[others], values, variant.transform)
    return judged | measures.training(fitted.model) | {"moved": fitted.moved}
