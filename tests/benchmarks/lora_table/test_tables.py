from __future__ import annotations

import math
from pathlib import Path

import pandas
import pandas.testing
import pytest

from benchmarks.lora_table import tables
from optuna_llmbo.errors import InputError
from tests.benchmarks.lora_table.conftest import CONTEXT
from tests.benchmarks.lora_table.conftest import grid
from tests.benchmarks.lora_table.conftest import make_row


def test_a_run_is_what_determines_it() -> None:
    one, other, *_ = grid()
    assert tables.run_id(one, CONTEXT) == tables.run_id(
        dict(reversed(one.items())), dict(reversed(CONTEXT.items()))
    )
    assert tables.run_id({**one, "comment": "x"}, CONTEXT) == tables.run_id(one, CONTEXT)
    assert tables.run_id(other, CONTEXT) != tables.run_id(one, CONTEXT)
    for change in ({"weights": "abd"}, {"proxy": 0.3}, {"seed": 1}, {"micro_batch_size": 4}):
        assert tables.run_id(one, {**CONTEXT, **change}) != tables.run_id(one, CONTEXT)


def test_written_and_read_again(tmp_path: Path) -> None:
    table = tables.frame([make_row(grid()[0], 3.25), make_row(grid()[1], math.nan)])
    path = tmp_path / "new" / "table.parquet"
    tables.write(table, path)
    again = tables.read(path)
    assert [list(curve) for curve in again["curve"]] == [list(c) for c in table["curve"]]
    columns = [name for name in tables.COLUMNS if name != "curve"]
    pandas.testing.assert_frame_equal(again[columns], table[columns])
    assert [file.name for file in path.parent.iterdir()] == ["table.parquet"]


def test_an_empty_table_has_all_columns(tmp_path: Path) -> None:
    tables.write(tables.frame([]), tmp_path / "empty.parquet")
    assert list(tables.read(tmp_path / "empty.parquet")) == list(tables.COLUMNS)


def test_rows_with_other_columns() -> None:
    row = make_row(grid()[0], 3.0)
    del row["steps"]
    with pytest.raises(InputError, match=r"differs in its columns: extra, steps\."):
        tables.frame([{**row, "extra": 1}])


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no table .* make it with"):
        tables.read(tmp_path / "no.parquet")
    pandas.DataFrame({"loss": [1.0]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(InputError, match=r"is not a table of runs: it lacks run_id, design"):
        tables.read(tmp_path / "other.parquet")


def test_merging_keeps_each_run_once() -> None:
    one, two, three = (make_row(params, 3.0) for params in grid()[:3])
    again = {**two, "loss": 3.0 + 1e-7, "device": "another"}
    merged = tables.merge([tables.frame([one, two]), tables.frame([again, three])], tolerance=1e-6)
    assert merged["run_id"].tolist() == [row["run_id"] for row in (one, two, three)]
    assert merged["device"].tolist() == ["CPU"] * 3
    assert list(merged.index) == [0, 1, 2]


@pytest.mark.parametrize("other", [3.1, math.nan])
def test_two_results_of_one_run_are_an_error(other: float) -> None:
    params = grid()[0]
    parts = [tables.frame([make_row(params, loss, device=str(loss))]) for loss in (3.0, other)]
    with pytest.raises(InputError, match=r"has several results, losses \[3\.0, (3\.1|nan)\]"):
        tables.merge(parts, tolerance=1e-6)
    if not math.isnan(other):
        assert len(tables.merge(parts, tolerance=0.2)) == 1


def test_merging_results_that_both_diverged() -> None:
    parts = [tables.frame([make_row(grid()[0], math.nan)]) for _ in range(2)]
    assert len(tables.merge(parts, tolerance=1e-6)) == 1
