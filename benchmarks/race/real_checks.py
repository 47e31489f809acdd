"""Check the surrogates of real training runs against the runs.

    RACE_TABLES=FOLDER python -m benchmarks.race.real_checks

Each surrogate predicts runs that it was not fitted to. On GPT pre-training, Optuna's samplers
search the surrogate, and their progress is compared with that of the published searches, which
trained really. Prints the results and stores them; minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.provenance import commit
from benchmarks.provenance import versions
from benchmarks.race import journal
from benchmarks.race import real
from benchmarks.race import real_tables
from benchmarks.race import study
from benchmarks.race import trees
from benchmarks.race.real_rows import Rows
from benchmarks.race.statistics import best_so_far
from benchmarks.race.study import Plan
from optuna_llmbo.errors import InputError


PATH = journal.RESULTS / "real_checks.json"
PACKAGES = ("numpy", "optuna", "scikit-learn")

N_FOLDS, N_REPEATS = 10, 3
N_LEAVE_ONE_OUT = 200
"""Tables of at most so many rows are checked by leaving out one at a time."""

AT = (10, 20, 30)
N_SEEDS = 10
SEARCHES = {"random": "random", "optuna": "tpe", "cma_es": "cmaes", "smac": None}
"""The published searches, and the method of the race that is the same sampler."""

Fold = tuple[np.ndarray, np.ndarray]


def folds(n: int, repeat: int) -> list[Fold]:
    """Split n rows: pairs of rows to fit to, and rows to predict."""
    order = np.random.default_rng(repeat).permutation(n)
    parts = np.array_split(order, n if n <= N_LEAVE_ONE_OUT else N_FOLDS)
    return [(np.setdiff1d(order, part), part) for part in parts]


def held_out(
    fit: Callable[[np.ndarray, np.ndarray], Any],
    features: np.ndarray,
    values: np.ndarray,
    repeat: int = 0,
) -> np.ndarray:
    """Predict each row by a model that is fitted to others, (n,)."""
    predicted = np.empty(len(values), values.dtype)
    for some, part in folds(len(values), repeat):
        predicted[part] = fit(features[some], values[some]).predict(features[part])
    return predicted


def spearman(values: np.ndarray, others: np.ndarray) -> float:
    """Compute Spearman's rank correlation."""
    return float(stats.spearmanr(values, others).statistic)


def check(rows: Rows) -> dict[str, Any]:
    """Compute the rank correlation of what a surrogate predicts for rows that were held out."""
    features = trees.encode(rows.space, rows.configurations)
    n = len(rows.values)
    repeats = 1 if n <= N_LEAVE_ONE_OUT else N_REPEATS
    predicted = [held_out(trees.regression, features, rows.values, i) for i in range(repeats)]
    better = rows.values <= np.median(rows.values)
    return {
        "configurations": n,
        "scheme": _scheme(n),
        "spearman": _mean(spearman(p, rows.values) for p in predicted),
        "spearman_better_half": _mean(spearman(p[better], rows.values[better]) for p in predicted),
    }


def check_failures(rows: Rows, is_random: np.ndarray) -> dict[str, Any]:
    """As `check`, for a table with failures, which are to be predicted too.

    Args:
        rows: the table.
        is_random: whether random search drew the configuration, (n,).
    """
    features = trees.encode(rows.space, rows.configurations)
    fails = np.isnan(rows.values)
    labels = [held_out(trees.classification, features, fails, i) for i in range(N_REPEATS)]
    known, values = features[~fails], rows.values[~fails]
    predicted = [held_out(trees.regression, known, values, i) for i in range(N_REPEATS)]
    subsets = {"": values < math.inf, "_below_1": values < 1.0, "_random": is_random[~fails]}
    ranked = {
        f"spearman{name}": _mean(spearman(p[some], values[some]) for p in predicted)
        for name, some in subsets.items()
    }
    return {
        "configurations": len(fails),
        "succeeded": int(np.sum(~fails)),
        "scheme": _scheme(len(fails)),
        **ranked,
        "failures": _mean(fails),
        "failures_predicted": _mean(float(np.mean(label == fails)) for label in labels),
        "failures_random": _mean(fails[is_random]),
        "failures_random_predicted": _mean(
            float(np.mean((label == fails)[is_random])) for label in labels
        ),
    }


def _scheme(n: int) -> str:
    return "leave-one-out" if n <= N_LEAVE_ONE_OUT else f"{N_FOLDS} folds, {N_REPEATS} times"


def _mean(values: Iterable[float]) -> float:
    return round(float(np.mean(list(values))), 4)


def _median(values: Iterable[float]) -> float:
    return round(float(np.median(list(values))), 4)


def drawn_by_random_search(rows: Rows) -> np.ndarray:
    """Find the configurations of GPT pre-training that random search drew, (n,)."""
    table = real_tables.read("gpt")
    drawn = table.loc[table["method"] == "random", list(rows.space)]
    drawn_too = set(drawn.itertuples(index=False, name=None))
    return np.array([tuple(c.values()) in drawn_too for c in rows.configurations])


def progress_of_runs() -> dict[str, dict[str, dict[str, float]]]:
    """Compute the best value by trial of the published searches, median of their seeds."""
    table = real_tables.read("gpt").sort_values("trial_id")
    values = table["val_bpb"].where(table["success"])
    found = {}
    for method in SEARCHES:
        rows = table["method"] == method
        curves = [some.to_numpy() for _, some in values[rows].groupby(table["seed"])]
        found[method] = progress(curves)
    return found


def progress_on_surrogate() -> dict[str, dict[str, dict[str, float]]]:
    """Compute the best value by trial of the same samplers on the surrogate.

    As in the published searches, trial 0 is the default and a failure has the value 100.
    """
    found = {}
    for name, method in SEARCHES.items():
        if method is not None:
            curves = []
            for seed in range(N_SEEDS):
                record = study.run(
                    Plan("real-gpt-pretrain-100", method, "default", seed, budget=max(AT) + 1)
                )
                assert record["error"] is None, record["error"]
                curves.append(np.array(record["values"]))
            found[name] = progress(curves)
    return found


def progress(curves: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    """Compute the lowest value after some trials, median over searches.

    Trial 0, the default, is counted as a trial, or else left out and not counted.
    """
    parts = {"all trials": curves, "without trial 0": [curve[1:] for curve in curves]}
    return {
        part: {str(n): _median(best_so_far(curve.tolist(), n)[-1] for curve in some) for n in AT}
        for part, some in parts.items()
    }


def main() -> None:
    """Check, print and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=PATH)
    arguments = parser.parse_args()
    made_by = {"commit": commit(), "versions": versions(PACKAGES)}
    try:
        for table in ("llama", "deberta", "gpt"):
            real_tables.find(table)
    except InputError as error:
        parser.error(str(error))
    checks = {
        f"real-llama-{size}-{metric}": check(real.llama_rows(size, metric))
        for size in real.LLAMA_RANKS
        for metric in real.LLAMA_METRICS
    }
    checks["real-deberta-mnli"] = check(real.deberta_rows())
    gpt = real.gpt_rows()
    checks["real-gpt-pretrain"] = check_failures(gpt, drawn_by_random_search(gpt))
    result = {
        **made_by,
        "surrogates": checks,
        "gpt_progress": {
            "runs": progress_of_runs(),
            "surrogate": progress_on_surrogate(),
            "surrogate_seeds": N_SEEDS,
        },
    }
    text = json.dumps(result, indent=1) + "\n"
    arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
