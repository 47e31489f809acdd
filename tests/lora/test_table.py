"""Where data come from: files and folders, data sets saved on disk and those of the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import data
from optuna_llmbo.lora import table
from optuna_llmbo.lora.data_files import read_folder
from optuna_llmbo.lora.records import Pair
from tests.lora.conftest import rows


ROWS = datasets.Dataset.from_list(rows(4))
PAIRS = [Pair(**row) for row in rows(4)]


# --- the hub ---


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the hub is asked for; it answers with `ROWS`."""
    calls: list[tuple[Any, ...]] = []

    def load(name: str, configuration: str | None = None, *, split: str) -> datasets.Dataset:
        calls.append((name, configuration, split))
        return ROWS

    monkeypatch.setattr(datasets, "load_dataset", load)
    return calls


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("org/data", ("org/data", None, "train")),
        ("squad", ("squad", None, "train")),
        ("org/data-1.0_x", ("org/data-1.0_x", None, "train")),
        ("openai/gsm8k:main", ("openai/gsm8k", "main", "train")),
        ("openai/gsm8k:main@test", ("openai/gsm8k", "main", "test")),
        ("org/data@train[:10%]", ("org/data", None, "train[:10%]")),
        ("org/data@train+test", ("org/data", None, "train+test")),
        ("org/data:20231101.en@train[10:20]", ("org/data", "20231101.en", "train[10:20]")),
    ],
)
def test_what_is_asked_of_the_hub(
    source: str, call: tuple[Any, ...], asked: list[tuple[Any, ...]]
) -> None:
    assert data.load_records(source) == PAIRS
    assert asked == [call]
    assert table.source_name(source) == source


@pytest.mark.parametrize("source", ["org/data@", "org/data:@x", "a/b/c", "org/data:a:b", "hf://a"])
def test_what_is_no_hub_id(source: str, asked: list[tuple[Any, ...]]) -> None:
    with pytest.raises(InputError, match="NAME, NAME:CONFIGURATION, NAME@SPLIT or both"):
        data.load_records(source)
    assert asked == []


@pytest.mark.parametrize(
    "reason",
    [
        "Unknown split \"train\". Should be one of ['test'].",
        "Config name is missing.\nPlease pick one among the available configs: ['main', 'so']",
    ],
)
def test_the_hub_says_what_there_is(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError(reason)

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(InputError) as caught:
        data.load_records("org/data")
    assert " ".join(reason.split()) in str(caught.value)
    assert "NAME:CONFIGURATION" in str(caught.value)


def test_what_exists_as_a_path_is_that_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[tuple[Any, ...]]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("org/data", "org/data@test"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        ROWS.to_json(folder / "a.jsonl")
        assert data.load_records(name) == PAIRS
    assert asked == []


# --- saved on disk ---


def test_a_saved_dataset(tmp_path: Path) -> None:
    ROWS.save_to_disk(tmp_path / "saved [1]")
    assert data.load_records(tmp_path / "saved [1]") == PAIRS
    with pytest.raises(InputError, match="has no splits to choose 'test' from"):
        data.load_records(f"{tmp_path}/saved [1]@test")
    with pytest.raises(InputError, match="has no splits to choose"):
        (tmp_path / "plain").mkdir()
        data.load_records(f"{tmp_path}/plain@test")


def test_saved_splits(tmp_path: Path) -> None:
    splits = {"train": ROWS, "test": ROWS.select([0])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    assert data.load_records(tmp_path / "saved") == PAIRS
    assert data.load_records(f"{tmp_path / 'saved'}@test") == PAIRS[:1]
    with pytest.raises(InputError, match="no split 'dev': name one of train, test, as .*@train"):
        data.load_records(f"{tmp_path / 'saved'}@dev")


def test_a_damaged_saved_dataset(tmp_path: Path) -> None:
    ROWS.save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "dataset_info.json").unlink()
    with pytest.raises(InputError, match="cannot read the data .*saved"):
        data.load_records(tmp_path / "saved")


# --- names ---


def test_a_name_does_not_depend_on_how_a_path_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "a.jsonl"
    ROWS.to_json(file)
    ways = [file, str(file), "folder/a.jsonl", "./folder/../folder/a.jsonl", "~/folder/a.jsonl"]
    assert {table.source_name(way) for way in ways} == {"a.jsonl"}
    assert {table.absolute(str(way)) for way in ways} == {str(file)}
    assert {table.source_name(way) for way in ("folder", "folder/", "~/folder")} == {"folder"}
    assert table.absolute("folder@test") == f"{tmp_path}/folder@test"
    for name in ("org/data", "org/data:main@test", "nowhere.jsonl"):
        assert table.absolute(name) == table.source_name(name) == name


def test_rows_may_lack_columns(tmp_path: Path) -> None:
    lines = [
        '{"prompt": "a", "response": "b"}',
        '{"response": "d", "prompt": "c", "context": "x"}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match="would not be read: 'context'"):
        data.load_records(tmp_path)
    assert data.load_records(tmp_path, ignore_columns=["context"]) == [
        Pair("a", "b"),
        Pair("c", "d"),
    ]
    assert read_folder(tmp_path)[0] == {"prompt": "a", "response": "b"}
