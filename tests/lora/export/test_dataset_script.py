"""The script that makes a tool's data: run as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.lora.export.samples import make_data
from tests.lora.export.samples import written
from tests.tiny import make_tiny_llm


ROWS = [
    {"instruction": "say é", "output": "é\n"},
    {"instruction": "x" * 40, "output": "y"},
    {"instruction": 'quote "', "output": "'"},
]


def make(folder: Path, **changes: Any) -> None:
    make_data(written(folder, "llamafactory", **changes))


def read(folder: Path, name: str = "train") -> list[dict[str, str]]:
    text = (folder / "data" / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
def test_too_long_examples_are_left_out_and_counted(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / f"source{suffix}"
    frame = pd.DataFrame(ROWS)
    if suffix == ".parquet":
        frame.to_parquet(source)
    elif suffix == ".csv":
        frame.to_csv(source, index=False)
    else:
        frame.to_json(source, orient="records", lines=suffix == ".jsonl")
    model = make_tiny_llm(tmp_path / "llm")
    # 40 bytes of prompt, a line break, a byte of response, the end
    make(tmp_path, model=str(model), train=str(source), max_length=42)
    said = "data/train.jsonl: 2 examples; 1 are too long and left out"
    assert said in capsys.readouterr().out
    assert read(tmp_path) == [
        {"prompt": "say é\n", "response": "é\n<eos>"},
        {"prompt": 'quote "\n', "response": "'<eos>"},
    ]
    make(tmp_path, model=str(model), train=str(source), max_length=43)
    assert len(read(tmp_path)) == 3


def test_columns(tmp_path: Path) -> None:
    source = tmp_path / "source.jsonl"
    source.write_text('{"ask": "a", "tell": "b"}\n')
    model = str(make_tiny_llm(tmp_path / "llm"))
    with pytest.raises(SystemExit, match="set PROMPT_COLUMN .*: there are .'ask', 'tell'."):
        make(tmp_path, model=model, train=str(source))
    columns = {"prompt_column": "ask", "response_column": "tell"}
    make(tmp_path, model=model, train=str(source), validation=str(source), **columns)
    assert read(tmp_path) == read(tmp_path, "validation")
    assert read(tmp_path) == [{"prompt": "a\n", "response": "b<eos>"}]
