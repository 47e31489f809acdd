"""What the proxy saves: by counting against by enumeration, on a made-up table, and as printed."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas
import pytest

from benchmarks import proxy_savings
from benchmarks.lora_table import tables
from benchmarks.proxy_savings import Runs


DOCS = Path(__file__).parents[2] / "docs" / "benchmarks" / "proxy.md"


@pytest.mark.parametrize("top", [1, 2, 3])
def test_the_means_are_those_over_all_subsets(top: int) -> None:
    rng = np.random.default_rng(0)
    order, values = rng.random(7), rng.random(7)
    lowest = proxy_savings.best_of_top(order, values, top)
    total = proxy_savings.sum_of_top(order, values, top)
    for n in range(1, 8):
        subsets = itertools.combinations(range(7), n)
        chosen = [values[sorted(subset, key=order.__getitem__)[:top]] for subset in subsets]
        assert lowest[n - 1] == pytest.approx(np.mean([some.min() for some in chosen]))
        assert total[n - 1] == pytest.approx(np.mean([some.sum() for some in chosen]))


def made_up(part_loss: np.ndarray, n: int = 60) -> Runs:
    """Losses 1, ..., n on all data; a run takes 10 seconds, on the part 1."""
    return Runs(part_loss, np.ones(n), np.arange(1.0, n + 1), np.full(n, 10.0))


def test_a_perfect_proxy_costs_its_trials_and_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_savings, "BUDGETS", (5, 30))
    perfect = made_up(np.arange(60.0))
    measures = proxy_savings.measures(perfect, top=1)
    loss, seconds = proxy_savings.direct(perfect)
    assert loss[29] == pytest.approx(61 / 31)  # the mean lowest of 30 of 60 numbers
    assert seconds[29] == 300
    assert measures["loss"] == pytest.approx(61 / 31)
    assert measures["worse"] == pytest.approx(0, abs=1e-12)
    assert measures["time"] == pytest.approx((30 + 10) / 300)
    assert measures["trials 30"] == 30 and measures["trials 5"] == 5
    assert measures["saved 30"] == pytest.approx(1 - 40 / 300)
    more = proxy_savings.measures(perfect, top=5)
    assert more["saved 5"] == pytest.approx(1 - 55 / 50)  # nothing is saved: all are trained again


def test_a_proxy_that_misleads_never_gets_there() -> None:
    searched = made_up(-np.arange(60.0))
    measures = proxy_savings.measures(searched, top=1)
    assert measures["loss"] == pytest.approx(61 - 61 / 31)
    assert measures["trials 30"] == np.inf and measures["saved 30"] == -np.inf
    kept = proxy_savings.estimates(searched, 1, n_resamples=20)
    assert kept["saved 30"] == kept["trials 30"] == [None] * 3
    low, high = kept["worse"][1:]
    assert low < measures["worse"] < high  # type: ignore[operator]


def test_only_runs_that_pair_count() -> None:
    table = tables.read(proxy_savings.TABLE)
    part = table[(table["design"] == "random") & (table["seed"] == 0)]
    whole = part[part["fraction"] == 1.0]
    runs = proxy_savings.runs(table, 0.1)
    assert len(runs.loss) == len(whole) < (part["fraction"] == 0.1).sum()
    assert sorted(runs.loss) == sorted(whole["loss"])
    row = part[part["fraction"] == 0.1].iloc[3]
    assert row["seconds"] == runs.part_seconds[runs.part_loss == row["loss"]]
    twin = whole[(whole[list(tables.PARAMS)] == row[list(tables.PARAMS)]).all(axis=1)]
    assert runs.loss[runs.part_loss == row["loss"]] == twin["loss"].item()
    lost = pandas.concat([part.drop(index=row.name), whole])
    assert len(proxy_savings.runs(lost.drop_duplicates("run_id"), 0.1).loss) == len(whole) - 1


def test_the_kept_result_is_the_tables_and_stands_in_the_docs() -> None:
    record = json.loads(proxy_savings.RESULTS.read_text())
    runs = proxy_savings.runs(tables.read(proxy_savings.TABLE), 0.1)
    (kept,) = (one for one in record["searches"] if (one["fraction"], one["top"]) == (0.1, 3))
    for name, value in proxy_savings.measures(runs, 3).items():
        assert kept[name][0] == (pytest.approx(value) if np.isfinite(value) else None)
    text = DOCS.read_text()
    for part in proxy_savings.report(record).split("\n\n"):
        assert part in text
