"""Make one fit of a variant, on one split of a task, and record its measures."""

from __future__ import annotations

import time
import traceback
from typing import Any

from benchmarks.choices import problems
from benchmarks.choices.fit import predict
from benchmarks.choices.variants import VARIANTS
from benchmarks.prediction import measures
from benchmarks.prediction.evaluate import Plan
from benchmarks.race.study import one_thread
from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.targets import Scale


MEASURES = ("spearman", "nlpd", "coverage", "percentile")


def run(plan: Plan) -> dict[str, Any]:
    """Make a fit and measure it.

    Returns:
        The plan's fields; `MEASURES`, None where the fit failed; `n_predicted`, the number of
        rows; `moved`, whether training has changed the token; `total_seconds`, those of the first
        reading included; `error`, the traceback, or None.
    """
    begun = time.perf_counter()
    one_thread()
    record: dict[str, Any] = {**vars(plan), **dict.fromkeys((*MEASURES, "n_predicted", "moved"))}
    record["error"] = None
    try:
        record |= _measured(plan)
    except Exception:  # a failure is a result too
        record["error"] = traceback.format_exc()
    return record | {"total_seconds": round(time.perf_counter() - begun, 3)}


def _measured(plan: Plan) -> dict[str, Any]:
    problem, transform = problems.load(plan.task), Ablation().transform
    observed, others = problem.split(plan.n_observed, plan.split)
    values = problem.values(observed)
    scores = Scale.of(values, transform).scores(values)
    found = predict(VARIANTS[plan.method], problem, observed, others, scores, plan.split)
    judged = (found.mean, found.deviation, problem.values(others), values, transform)
    return measures.held_out(*judged) | {
        "coverage": measures.coverage(*judged),
        "n_predicted": len(others),
        "moved": found.moved,
    }
