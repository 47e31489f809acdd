"""Data files are read as they are written, whatever their names."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import data
from optuna_llmbo.lora.data_files import read_file
from optuna_llmbo.lora.data_files import read_folder
from optuna_llmbo.lora.records import Pair


ROWS: list[dict[str, Any]] = [
    {"prompt": "say é", "response": "é"},
    {"prompt": "1, 2", "response": "NA"},
]


def written(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# --- names ---


@pytest.mark.parametrize(
    "name",
    [
        "my data [v1].jsonl",
        "[a-z].jsonl",
        "all*.jsonl",
        "what?.jsonl",
        "{a,b}.jsonl",
        "**/data.jsonl",
        "a::b.jsonl",
        "zip://x.jsonl",
        "größe 数据.jsonl",
        "DATA.JSONL",
        "a@train.jsonl",
        "__special__/.hidden.jsonl",
        "-1.jsonl",
        "a\nb.jsonl",
    ],
)
def test_a_path_is_a_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / name)
    written(tmp_path / "other" / "a.jsonl", [{"prompt": "wrong", "response": "one"}])
    written(tmp_path / "v.jsonl", [{"prompt": "wrong", "response": "one"}])
    expected = [Pair(**row) for row in ROWS]
    assert data.load_records(path) == data.load_records(str(path)) == expected
    monkeypatch.chdir(tmp_path)
    assert data.load_records(name) == expected
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data.load_records(f"~/{name}") == expected


@pytest.mark.parametrize(
    "name", ["nowhere.jsonl", "./nowhere", "a/b/c", "*.jsonl", "file:///nowhere.csv", "~/nowhere"]
)
def test_what_is_no_path_is_said_to_be_none(name: str) -> None:
    with pytest.raises(InputError, match="there is no data file or folder .*Expected a JSON"):
        data.load_records(name)


# --- formats ---


def test_gzipped_files(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(gzip.compress(written(tmp_path / "data.jsonl").read_bytes()))
    assert read_file(path) == ROWS
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InputError, match="cannot read the data .*data.jsonl.gz"):
        read_file(path)
    other = tmp_path / "data.jsonl.bz2"
    other.write_bytes(bz2.compress(b"{}"))
    with pytest.raises(InputError, match="known suffixes: .json, .jsonl, .csv, .parquet, each al"):
        read_file(other)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_lists_and_lines_of_objects(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("\ufeff" + json.dumps(ROWS, indent=1))
    assert read_file(path) == ROWS
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\r\n\n" for row in ROWS))
    assert read_file(path) == ROWS
    line_ends = [{"prompt": "a\u2028b\x85c", "response": "d"}]  # str.splitlines splits at these
    path.write_text(json.dumps(line_ends[0], ensure_ascii=False), encoding="utf-8")
    assert read_file(path) == line_ends


def test_texts_stay_texts(tmp_path: Path) -> None:
    rows = [{"prompt": f"day {i}", "response": f"2024-01-0{i}"} for i in range(1, 4)]
    assert read_file(written(tmp_path / "dates.jsonl", rows)) == rows
    texts = ["007", "1.50", "NA", "null", "True", "1e5"]
    frame = pd.DataFrame({"prompt": [f"p{i}" for i in range(6)], "response": texts})
    frame.to_csv(tmp_path / "texts.csv", index=False)
    assert [row["response"] for row in read_file(tmp_path / "texts.csv")] == texts


def test_csv_with_everything_in_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    long = "x" * 300_000
    path.write_bytes(f'\ufeffprompt,response\r\n"a, ""b""\nc","{long}"\r\n\r\n d ,e\r\n'.encode())
    assert read_file(path) == [
        {"prompt": 'a, "b"\nc', "response": long},
        {"prompt": " d ", "response": "e"},
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "'.*a.jsonl' has no rows: it has 0 bytes"),
        ("a.jsonl", b"\n\n", "has no rows: it has 2 bytes"),
        ("a.json", b"[]", "has no rows: it has 2 bytes"),
        ("a.csv", b"", "has no rows: it has 0 bytes"),
        ("a.csv", b"prompt,response\n", "has no rows: it has a header only"),
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "line 2: Expecting value at character 7"),
        ("a.jsonl", b'{"a": 1, "a": 2}', "has the key 'a' twice"),
        ("a.jsonl", b'{"a": 1}\n3\n', r"row 1 \(counted from 0\) is 3"),
        ("a.json", b'["a", "b"]', r"row 0 \(counted from 0\) is 'a'. Expected a list of objects"),
        ("a.json", b'{\n"data": [{"a": 1}]\n}', "it holds one object. Expected a list of objects"),
        ("a.json", b'{\n"data": [{"a": 1}]\n', "line 1: "),
        ("a.jsonl", '{"a": "é"}'.encode("latin-1"), "'utf-8' codec can't decode"),
        ("a.jsonl", '{"a": "é"}'.encode("utf-16"), "'utf-8' codec can't decode"),
        ("a.csv", b"a,b\n1,2,3\n", "line 2 has 3 values, and the header 2"),
        ("a.csv", b"a,b\n1\n", "line 2 has 1 values, and the header 2"),
        ("a.csv", b"a,b,a\n1,2,3\n", "columns have the same name: a, b, a"),
        ("a.csv", b'a,b\n"1,2\n', "line 2: unexpected end of data"),
        ("a.parquet", b"no parquet", "cannot read the data .*a.parquet"),
    ],
)
def test_what_is_wrong_with_a_file(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        data.load_records(path)


def test_an_empty_table(tmp_path: Path) -> None:
    pd.DataFrame({"prompt": [], "response": []}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has no rows: it has columns only"):
        read_file(tmp_path / "a.parquet")


# --- folders ---


def test_a_folder_is_its_files_in_order(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"prompt": f"p{i}", "response": "r"} for i in range(3)]
    for i in (2, 0, 1):
        written(tmp_path / "d [1]" / f"train-0000{i}.jsonl", [rows[i]])
    for name in (".hidden.jsonl", "README.md", "LICENSE", "_SUCCESS"):
        (tmp_path / "d [1]" / name).write_text("no data")
    assert read_folder(tmp_path / "d [1]") == rows
    assert data.load_records(str(tmp_path / "d [1]") + "/") == [Pair(**row) for row in rows]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "has no data files: .json, .jsonl, .csv, .parquet"),
        ([".hidden.jsonl"], "has no data files"),
        (["a.jsonl", "b.csv"], "data files of one kind .*but has a.jsonl, b.csv. Name one"),
        (["a.jsonl", "b.txt"], "but has a.jsonl, b.txt"),
        (["a.jsonl", "more/b.jsonl"], "but has a.jsonl, more/"),
        (["train.jsonl", "test.jsonl"], r"files to train on and others \(test.jsonl, train.jsonl"),
        (["my-train-1.jsonl", "my-dev.jsonl"], "name the files, one for each part"),
    ],
)
def test_folders_that_are_not_one_set_of_data(
    names: list[str], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in names:
        written(folder / name)
    with pytest.raises(InputError, match=message):
        data.load_records(folder)


def test_a_folder_of_held_out_files_only(tmp_path: Path) -> None:
    for name in ("test-0.jsonl", "test-1.jsonl"):
        written(tmp_path / name)
    assert len(read_folder(tmp_path)) == 4
