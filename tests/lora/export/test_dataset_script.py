"""The script that makes a tool's data: run as a user runs it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import transformers

from optuna_llmbo.lora import splits
from optuna_llmbo.lora import tokens
from optuna_llmbo.lora.data import load_records
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


# --- the same reading as in a trial ---

FEW = [{"prompt": f"{i}", "response": f"say {i % 7}"} for i in range(20)]
ALPACA = [
    {"instruction": f"Add {i}.", "input": "to 3" if i % 2 else "", "output": f"{i}", "text": "x y"}
    for i in range(20)
]


def save(place: Path, rows: list[dict[str, Any]]) -> None:
    """As the kind of file or folder that the name says."""
    if place.name == "folder [1]":
        place.mkdir()
        for i in range(0, len(rows), 7):
            pd.DataFrame(rows[i : i + 7]).to_csv(place / f"part-{i:02}.csv", index=False)
        (place / "README.md").write_text("about")
    elif place.name.startswith("saved"):
        table = datasets.Dataset.from_list(rows)
        splits = datasets.DatasetDict({"train": table.select([0]), "test": table})
        (splits if place.name == "saved-splits" else table).save_to_disk(place)
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        content = text.encode()
        place.write_bytes(gzip.compress(content) if place.suffix == ".gz" else content)


@pytest.mark.parametrize("rows", [FEW, ALPACA], ids=["pairs", "alpaca"])
@pytest.mark.parametrize(
    "name", ["a [v1].jsonl", "a.jsonl.gz", "folder [1]", "saved", "saved-splits@test"]
)
def test_the_pairs_are_those_of_a_trial(
    name: str, rows: list[dict[str, Any]], tmp_path: Path, tiny_llm: Path
) -> None:
    save(tmp_path / name.partition("@")[0], rows)
    source = str(tmp_path / name)
    columns: dict[str, Any] = {"ignore_columns": ("text",) if rows is ALPACA else ()}
    make(tmp_path, model=str(tiny_llm), train=source, **columns)
    expected = load_records(source, **columns)
    assert len(expected) == 20
    assert read(tmp_path) == [
        {"prompt": pair.prompt + "\n", "response": pair.response + "<eos>"} for pair in expected
    ]


def test_an_input_that_is_ignored(tmp_path: Path, tiny_llm: Path) -> None:
    save(tmp_path / "a.jsonl", ALPACA)
    ignored = {"ignore_columns": ("text", "input")}
    make(tmp_path, model=str(tiny_llm), train=str(tmp_path / "a.jsonl"), **ignored)
    assert [row["prompt"] for row in read(tmp_path)] == [f"Add {i}.\n" for i in range(20)]


def test_a_dataset_of_the_hub(
    tmp_path: Path, tiny_llm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load(name: str, configuration: str | None, *, split: str) -> datasets.Dataset:
        asked.append((name, configuration, split))
        return datasets.Dataset.from_list(FEW)

    monkeypatch.setattr(datasets, "load_dataset", load)
    for source in ("org/data", "org/data:main@train[:5%]"):
        make(tmp_path, model=str(tiny_llm), train=source)
    assert asked == [("org/data", None, "train"), ("org/data", "main", "train[:5%]")]
    assert len(read(tmp_path)) == 20


@pytest.mark.parametrize(("validation", "test"), [(0.25, None), (5, 3), (0.25, 0.2)])
def test_what_is_split_off_is_what_the_trials_split_off(
    validation: float, test: float | None, tmp_path: Path, tiny_llm: Path
) -> None:
    rows = [*FEW, FEW[3], {"prompt": "x" * 90, "response": "too long"}]
    save(tmp_path / "a.jsonl", rows)
    source = str(tmp_path / "a.jsonl")
    sizes: dict[str, Any] = {"validation": validation, "test": test, "max_length": 60}
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_llm)
    usable = tokens.encode(load_records(source), tokenizer, 60)
    parts = splits.hold_out({"training": usable}, validation, test, seed=4)
    make(tmp_path, model=str(tiny_llm), train=source, seed=4, **sizes)
    for name, part in (("train", "training"), ("validation", "validation")):
        prompts = [row["prompt"] for row in read(tmp_path, name)]
        assert prompts == [example.record.prompt + "\n" for example in parts[part]], name
    assert not (tmp_path / "data" / "test.jsonl").exists()


def test_a_date_in_the_template(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_tiny_llm(tmp_path / "llm", chat=True)
    template = model / "chat_template.jinja"
    template.write_text("{{ strftime_now('%d %b %Y') }} " + template.read_text())
    save(tmp_path / "a.jsonl", FEW[:1])
    make(tmp_path, model=str(model), train=str(tmp_path / "a.jsonl"))
    assert read(tmp_path) == [
        {"prompt": "26 Jul 2024 <user>0<assistant>", "response": "say 0<eos>"}
    ]
    assert "The chat template writes the date: in the trials 2024-07-26" in capsys.readouterr().out
