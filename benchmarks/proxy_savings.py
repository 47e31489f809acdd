"""Measure what the proxy saves: searches on a part of the LoRA table's data or on all of it.

A direct search of n random configurations on all data returns the best of them. A search on a
fraction trains its best k again on all data, as `promote` does, and returns the best of these.
Losses and seconds are those of the table's real runs, the 150 configurations that were run at
every fraction, with one seed. The means over all searches of n distinct ones are computed exactly,
by counting, so that drawing searches adds no noise; the intervals come from resampling the
configurations themselves (bootstrap, 95%), comparing both searches on the same resample.

"Saved" is at equal quality: the fewest trials on the fraction whose mean final loss is at most
that of the direct search, and the time that they and the retraining take. At most 75 trials are
considered, half of the configurations, as larger searches overlap more and more.

    python -m benchmarks.proxy_savings            # a minute on a core, and the tables
    python -m benchmarks.proxy_savings --report   # the kept results as Markdown
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from scipy.special import comb

from benchmarks import console
from benchmarks.lora_table import tables
from benchmarks.lora_table.tables import PARAMS
from benchmarks.lora_table.tiers import FRACTIONS
from benchmarks.race.run import provenance


RESULTS = Path(__file__).parent / "results" / "proxy_savings.json"
TABLE = tables.FOLDER / "cpu.parquet"
BUDGETS, TRIALS = (5, 10, 30, 60), 30
MOST = 75  # trials on a part
TOPS = (1, 3)
N_RESAMPLES, LEVEL = 2000, 0.95

Measures = dict[str, float]


@dataclass(frozen=True)
class Runs:
    """Configurations run on a part and on all of the data, each array (N,)."""

    part_loss: np.ndarray
    part_seconds: np.ndarray
    loss: np.ndarray
    """On all data."""
    seconds: np.ndarray

    def take(self, rows: np.ndarray) -> Runs:
        """Select rows; a row may be repeated."""
        arrays = (self.part_loss, self.part_seconds, self.loss, self.seconds)
        return Runs(*(array[rows] for array in arrays))


def runs(table: pandas.DataFrame, fraction: float) -> Runs:
    """Select random configurations, seed 0, with a result at a fraction and on all data."""
    rows = table[(table["design"] == "random") & (table["seed"] == 0)]
    wide = rows.pivot(index=list(PARAMS), columns="fraction", values=["loss", "seconds"])
    wide = wide[[(what, f) for f in (fraction, 1.0) for what in ("loss", "seconds")]].dropna()
    return Runs(*wide.to_numpy().T)


def direct(searched: Runs) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean final loss and seconds of direct searches of 1, ..., N, (N,) each."""
    numbers = np.arange(1, len(searched.loss) + 1)
    return best_of_top(searched.loss, searched.loss, 1), numbers * searched.seconds.mean()


def by_proxy(searched: Runs, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the same for searches on the part, with the best `top` trained on all data.

    A search of fewer than `top` configurations trains all of them again.
    """
    numbers = np.arange(1, len(searched.loss) + 1)
    retraining = sum_of_top(searched.part_loss, searched.seconds, top)
    seconds = numbers * searched.part_seconds.mean() + retraining
    return best_of_top(searched.part_loss, searched.loss, top), seconds


def best_of_top(order: np.ndarray, values: np.ndarray, top: int) -> np.ndarray:
    """Average, over all subsets of n, the lowest value among the first `top` of a subset.

    For each rank, count the subsets in which it is the last of the `top`: the others of the `top`
    are any of those before it, the rest any of those after. Of the others' values, cut off at
    the last one's, the q-th highest (from 0) is the lowest in C(q, `top` - 2) choices.

    Args:
        order: (N,) sort keys, lowest first.
        values: (N,), none negative.
        top: k, at least 1.

    Returns:
        (N,), for n = 1, ..., N; for n < k as with k = n.
    """
    sorted_values, size = values[np.argsort(order, kind="stable")], len(values)
    if top == 1:
        return np.asarray(_last_of_top(size, 1) @ sorted_values)
    clipped = np.tril(np.minimum(sorted_values, sorted_values[:, None]), -1)  # (last, others)
    lowest = -np.sort(-clipped, axis=1) @ comb(np.arange(size), top - 2)
    means = _last_of_top(size, top) @ lowest
    means[: top - 1] = best_of_top(order, values, top - 1)[: top - 1]
    return np.asarray(means)


def sum_of_top(order: np.ndarray, values: np.ndarray, top: int) -> np.ndarray:
    """Average, over all subsets of n, the sum of the values of the first `top`, (N,)."""
    sorted_values, size = values[np.argsort(order, kind="stable")], len(values)
    ranks = np.arange(size)
    chosen = sum(_last_of_top(size, j) * comb(ranks, j - 1) for j in range(1, top + 1))
    return np.asarray(chosen @ sorted_values)


@functools.cache
def _last_of_top(size: int, top: int) -> np.ndarray:
    """Share of the subsets of n whose first `top` are a rank and given ones before, (n, rank)."""
    numbers, behind = np.arange(1, size + 1)[:, None], size - 1 - np.arange(size)
    return np.asarray(comb(behind, numbers - top) / comb(size, numbers))


def measures(part: Runs, top: int) -> Measures:
    """Measure what one fraction and k cost and save, on one sample of configurations.

    Returns:
        At `TRIALS` trials: "loss" of the proxy search; "worse", that less the direct search's;
        "time", its seconds over the direct one's. For each budget, "trials N", the fewest on the
        part that are as good as N directly, and "saved N", the share of the seconds; inf and -inf
        where `MOST` are too few.
    """
    loss, seconds = by_proxy(part, top)
    direct_loss, direct_seconds = direct(part)
    at = TRIALS - 1
    result = {
        "loss": loss[at],
        "worse": loss[at] - direct_loss[at],
        "time": seconds[at] / direct_seconds[at],
    }
    for budget in BUDGETS:
        reached = np.flatnonzero(loss[:MOST] <= direct_loss[budget - 1])
        first = reached[0] if len(reached) else None
        result[f"trials {budget}"] = np.inf if first is None else first + 1.0
        result[f"saved {budget}"] = (
            -np.inf if first is None else 1 - seconds[first] / direct_seconds[budget - 1]
        )
    return {name: float(value) for name, value in result.items()}


Estimate = list[float | None]


def estimates(part: Runs, top: int, n_resamples: int = N_RESAMPLES) -> dict[str, Estimate]:
    """Estimate each measure as [value, low, high] by resampling; None where infinite."""
    rng, size = np.random.default_rng(0), len(part.loss)
    samples = [measures(part.take(rng.integers(size, size=size)), top) for _ in range(n_resamples)]
    tail = round((n_resamples - 1) * (1 - LEVEL) / 2)
    result = {}
    for name, value in measures(part, top).items():
        ordered = sorted(sample[name] for sample in samples)  # elements: they may be infinite
        numbers = (value, ordered[tail], ordered[-1 - tail])
        result[name] = [number if np.isfinite(number) else None for number in numbers]
    return result


def measure(table: pandas.DataFrame) -> dict[str, Any]:
    """Measure the direct search, and each fraction and k."""
    whole = runs(table, FRACTIONS[0])
    loss, seconds = direct(whole)
    searches = [
        {"fraction": fraction, "top": top, **estimates(runs(table, fraction), top)}
        for fraction in FRACTIONS[:-1]
        for top in TOPS
    ]
    at = {str(n): {"loss": float(loss[n - 1]), "seconds": float(seconds[n - 1])} for n in BUDGETS}
    return {"configurations": len(whole.loss), "direct": at, "searches": searches}


def report(record: Mapping[str, Any]) -> str:
    """Format quality at the same number of trials, and savings at the same quality."""
    at = record["direct"][str(TRIALS)]
    lines = [f"{TRIALS} trials on all data: {at['seconds']:.0f} seconds, loss {at['loss']:.4f}."]
    rows, saved = [], []
    for one in record["searches"]:
        name = [f"{one['fraction']:.0%}", f"best {one['top']}"]
        worse, time = one["worse"], one["time"]
        rows.append(
            [
                *name,
                f"{time[0]:.2f} ({time[1]:.2f} to {time[2]:.2f})",
                f"{one['loss'][0]:.4f}",
                f"{worse[0]:+.4f} ({worse[1]:+.4f} to {worse[2]:+.4f})",
                f"{_trials(one, 0)} ({_trials(one, 1)} to {_trials(one, 2)})",
            ]
        )
        saved.append([*name, *(_saved(one[f"saved {budget}"]) for budget in BUDGETS)])
    head = ["fraction", "retrained"]
    quality = ["seconds of those on all data", "loss", "worse", "trials for the same loss"]
    budgets = [f"saved, as good as {n} on all data" for n in BUDGETS]
    lines += [console.table([*head, *quality], rows), console.table([*head, *budgets], saved)]
    return "\n\n".join(lines)


def _trials(one: Mapping[str, Any], which: int) -> str:
    number = one[f"trials {TRIALS}"][which]
    return f"over {MOST}" if number is None else f"{number:.0f}"


def _saved(estimate: Sequence[float | None]) -> str:
    value, low, high = ("-" if x is None else f"{x:.0%}" for x in estimate)
    return "-" if value == high == "-" else f"{value} ({low} to {high})"


def main() -> None:
    """Measure, save and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", action="store_true", help="only print the kept results")
    if not parser.parse_args().report:
        record = {**provenance(), **measure(tables.read(TABLE))}
        RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    print(report(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
