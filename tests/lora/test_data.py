from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import data
from optuna_llmbo.lora.columns import KNOWN_COLUMNS
from optuna_llmbo.lora.records import Pair
from tests.lora.conftest import rows


PAIRS = [Pair(**row) for row in rows(20)]


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
def test_reads_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"pairs{suffix}"
    table = datasets.Dataset.from_list(rows(20))
    writers = {".csv": table.to_csv, ".parquet": table.to_parquet, ".jsonl": table.to_json}
    if suffix == ".json":
        path.write_text(json.dumps(rows(20)))
    else:
        writers[suffix](str(path))
    assert data.load_records(path) == PAIRS
    assert data.load_records(str(path)) == PAIRS


@pytest.mark.parametrize(("prompt", "response"), KNOWN_COLUMNS)
def test_detects_columns(prompt: str, response: str) -> None:
    table = datasets.Dataset.from_list([{"id": 1, response: "b", prompt: "a"}])
    assert data.load_records(table) == [Pair("a", "b")]


def test_named_columns_win() -> None:
    table = datasets.Dataset.from_list([{"prompt": "a", "response": "b", "code": "c"}])
    named = {"response_column": "code", "ignore_columns": ["response"]}
    assert data.load_records(table, **named) == [Pair("a", "c")]
    with pytest.raises(InputError, match="would not be read: 'response'"):
        data.load_records(table, response_column="code")


def test_a_column_to_stratify_by() -> None:
    table = _table(prompt=["a", "b"], response=["c", "d"], topic=["x", None])
    pairs = data.load_records(table, stratum_column="topic")
    assert [pair.stratum for pair in pairs] == ["x", None]
    assert [pair.key for pair in pairs] == [("a", "c"), ("b", "d")]
    assert [pair.stratum for pair in data.load_records(table)] == [None, None]


def _table(**columns: list[Any]) -> datasets.Dataset:
    return datasets.Dataset.from_dict(columns)


@pytest.mark.parametrize(
    ("source", "columns", "message"),
    [
        (_table(body=["a"], label=["b"]), {}, "name prompt_column .* columns are: body, label"),
        (_table(prompt=["a"], label=["b"]), {}, "cannot tell what the examples are"),
        (_table(q=["a"]), {"prompt_column": "z"}, "no column 'z'. The columns are: q"),
        (
            _table(q=["a"]),
            {"prompt_column": "q", "response_column": "q"},
            "both read from the column 'q'",
        ),
        (_table(prompt=[], response=[]), {}, "a Dataset has no rows"),
        (_table(prompt=["a", " "], response=["b", "b"]), {}, "'prompt' has no text in row 1 "),
        (
            _table(prompt=["a"] * 8, response=["b"] + [None] * 7),
            {},
            "row 1, 2, 3, 4, 5 and 2 more",
        ),
        (_table(prompt=["a"], response=[3]), {}, "'response' has 3 in row 0 .*of type int"),
        (
            _table(prompt=["a"], response=["b"]),
            {"stratum_column": "topic"},
            "no column 'topic'. The columns are: prompt, response",
        ),
        (
            _table(prompt=["a"] * 2, response=["b"] * 2, tags=[[], ["x"]]),
            {"stratum_column": "tags"},
            r"column 'tags' has \[\] in row 0 .*texts, numbers or booleans",
        ),
        (
            "stdlib-docstrings",
            {"stratum_column": "topic"},
            "no column 'topic'. The columns are: prompt, resp",
        ),
        (datasets.DatasetDict(), {}, "got a DatasetDict. Of a DatasetDict, pass one split"),
        (None, {}, "expected a datasets.Dataset, .* got a NoneType"),
        ("nowhere.jsonl", {}, "there is no data file or folder 'nowhere.jsonl'"),
    ],
)
def test_bad_sources(source: Any, columns: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        data.load_records(source, **columns)


def test_bad_files(tmp_path: Path) -> None:
    text = tmp_path / "pairs.txt"
    text.write_text("a\tb\n")
    with pytest.raises(InputError, match="known suffixes: .json, .jsonl, .csv, .parquet"):
        data.load_records(text)
    broken = tmp_path / "pairs.json"
    broken.write_text('{"prompt": ')
    with pytest.raises(InputError, match="cannot read the data .*pairs.json"):
        data.load_records(broken)


def test_unknown_hub_id(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: Any, **kwargs: Any) -> None:
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'some/data' doesn't exist")

    monkeypatch.setattr(datasets, "load_dataset", missing)
    with pytest.raises(InputError, match="cannot read the data 'some/data': .* doesn't exist"):
        data.load_records("some/data")


@pytest.mark.parametrize(
    ("validation", "n", "whole", "count"),
    [
        (None, 50, None, 5),
        (None, 9000, None, 128),
        (7, 8, None, 7),
        (np.int64(7), 8, None, 7),
        (0.1, 50, None, 5),
        (np.float32(0.5), 9, None, 4),
        (0.1, 90, 100, 10),  # a tenth of all examples, of which the test has ten
    ],
)
def test_validation_count(validation: Any, n: int, whole: int | None, count: int) -> None:
    assert data.validation_count(validation, n, whole) == count


@pytest.mark.parametrize("asked", [0.0, 1.0, 1.5, -0.1, float("nan"), float("inf"), True])
def test_sizes_that_are_none(asked: Any) -> None:
    with pytest.raises(InputError, match="validation=.*expected a number .* above 0 and below 1"):
        data.validation_count(asked, 100)


@pytest.mark.parametrize(
    ("source", "expected"),
    [(3, True), (0.1, True), (np.int32(3), True), (True, True), ("3", False), (None, False)],
)
def test_what_is_a_size(source: Any, expected: bool) -> None:
    assert data.is_size(source) is expected


@pytest.mark.parametrize(
    ("validation", "n"), [(0, 8), (8, 8), (-1, 8), (0.01, 8), (0.99, 8), (None, 1)]
)
def test_bad_validation_count(validation: int | None, n: int) -> None:
    with pytest.raises(InputError, match=f"of {n} usable examples off for validation"):
        data.validation_count(validation, n)


def test_split_is_seeded_and_complete() -> None:
    keys = [pair.key for pair in PAIRS]
    train, validation = data.split(PAIRS, keys, 5, seed=1)
    assert len(validation) == 5
    assert sorted([*train, *validation], key=PAIRS.index) == PAIRS
    assert (train, validation) == data.split(PAIRS, keys, 5, seed=1)
    assert validation != data.split(PAIRS, keys, 5, seed=2)[1]


def test_split_keeps_copies_out_of_training() -> None:
    copies = [*PAIRS, *PAIRS]
    train, validation = data.split(copies, [pair.key for pair in copies], 5, seed=0)
    assert not set(train) & set(validation)
    assert len(validation) == len(set(validation)) == 5
    assert len(train) == 30


def test_a_split_is_the_same_for_good() -> None:
    # stored studies rest on it
    _, validation = data.split(range(20), range(20), 5, seed=1)
    assert validation == [1, 7, 10, 16, 18]
    _, test = data.split(range(20), range(20), 5, seed=1, part="test")
    assert test == [3, 5, 10, 16, 18]


def test_split_of_copies_only() -> None:
    same = [PAIRS[0]] * 4
    with pytest.raises(InputError, match="1 different .* too few to split 2 off for validation"):
        data.split(same, [pair.key for pair in same], 2, seed=0)
    with pytest.raises(InputError, match="too few to split 2 off for test"):
        data.split(same, [pair.key for pair in same], 2, seed=0, part="test")
