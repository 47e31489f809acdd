"""No column that holds a part of the examples is left out in silence."""

from __future__ import annotations

import datetime
from typing import Any

import datasets
import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import columns
from optuna_llmbo.lora import data
from optuna_llmbo.lora.records import Pair


N = 60
PAIRS = {"prompt": [f"p{i}" for i in range(N)], "response": ["r"] * N}
SENTENCE = "Answer like a pirate, please."


def table(**more: list[Any]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({**PAIRS, **more})


# --- what is joined ---


def test_an_input_is_joined_to_its_instruction() -> None:
    rows = {
        "instruction": ["Translate.", "Say hi.", "Say no.", "Sing."],
        "input": ["Guten Tag", "", None, "  "],
        "output": ["Good day", "hi", "no", "la"],
    }
    source = datasets.Dataset.from_dict(rows)
    expected = [
        Pair("Translate.\n\nGuten Tag", "Good day"),
        Pair("Say hi.", "hi"),
        Pair("Say no.", "no"),
        Pair("Sing.", "la"),
    ]
    assert data.load_records(source) == expected
    named = {"prompt_column": "instruction", "response_column": "output"}
    assert data.load_records(source, **named) == expected
    without = data.load_records(source, ignore_columns=["input"])
    assert [pair.prompt for pair in without] == rows["instruction"]


def test_an_input_that_is_no_text() -> None:
    source = datasets.Dataset.from_dict({"instruction": ["a"], "input": [3], "output": ["b"]})
    with pytest.raises(InputError, match="'input' has 3 in row 0 .* of type int"):
        data.load_records(source)


def test_an_input_beside_other_prompts_is_not_left_out() -> None:
    with pytest.raises(InputError, match=r"would not be read: 'input' \('more'\)"):
        data.load_records(table(input=["more"] * N))


# --- what is refused ---


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("System", ["x"] * N),
        ("context", [None] * (N - 1) + ["Paris"]),
        ("history", [[["hi", "ho"]]] * N),
        ("images", [[b"\x89PNG"]] * N),
        ("photo", [b"\x89PNG"] * N),
        ("question", ["q"] * N),
        ("text", ["p r"] * N),
        # by what they hold, whatever their names
        ("style", [SENTENCE + " Arr!"] * N),
        ("A", [chr(97 + i % 26) * (i + 1) for i in range(N)]),  # a choice each
        ("turns", [[{"who": "me", "says": f"well {i} then"}] for i in range(N)]),
        ("rules", [f"line\nline {i}" for i in range(N)]),
        ("正文", [f"这是第{i}个问题的背景，请回答" for i in range(N)]),
        ("stimmung", ["这是一个很长的系统提示"] * N),
    ],
)
def test_parts_of_examples(name: str, values: list[Any]) -> None:
    source = table(**{name: values}, number=list(range(N)))
    message = f"a Dataset has columns .*: '{name}' .*ignore_columns=.'{name}'. .--ignore-column"
    with pytest.raises(InputError, match=message):
        data.load_records(source)
    named = {"prompt_column": "prompt", "response_column": "response"}
    with pytest.raises(InputError, match="ignore"):
        data.load_records(source, **named)
    assert len(data.load_records(source, ignore_columns=[name])) == N


def test_all_such_columns_are_named_at_once() -> None:
    source = table(context=[SENTENCE] * N, persona=["pirate"] * N)
    with pytest.raises(InputError, match="--ignore-column context --ignore-column persona"):
        data.load_records(source)


DAYS = [datetime.datetime(2024, 1, 1) + datetime.timedelta(hours=7 * i) for i in range(N)]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("id", [f"{chr(97 + i % 26)}" * (i + 1) for i in range(N)]),
        ("row_id", [f"train_{i}" for i in range(N)]),
        ("uuid", [f"6f1c-{i:x}" for i in range(N)]),
        ("url", [f"https://example.com/a?b={i}" for i in range(N)]),
        ("path", [f"data/part {i}.txt" if i % 2 else f"{i}.txt" for i in range(N)][1::2] * 2),
        ("source", ["wikipedia", "common crawl", "books"] * (N // 3)),
        ("category", [f"closed qa {i % 9}" for i in range(N)]),
        ("language", ["en"] * N),
        ("number", list(range(N))),
        ("score", [i / 7 for i in range(N)]),
        ("flag", [True, False] * (N // 2)),
        ("embedding", [[0.5, 1.0]] * N),
        ("when", DAYS),
        ("day", [day.date() for day in DAYS]),
        ("date", [day.isoformat(" ") for day in DAYS]),
        ("sent", [day.strftime("%a, %d %b %Y %H:%M:%S GMT") for day in DAYS]),
        ("tags", [["easy", "math"], ["hard"]] * (N // 2)),
        ("meta", [{"source": "web", "rank": i} for i in range(N)]),
        ("nothing", [None] * N),
        ("system", ["", " "] * (N // 2)),
        ("history", [[]] * N),
    ],
)
def test_facts_about_examples(name: str, values: list[Any]) -> None:
    assert len(data.load_records(table(**{name: values}))) == N


def test_the_column_that_stratifies_is_used() -> None:
    source = table(context=[f"topic {i % 3}" for i in range(N)])
    assert data.load_records(source, stratum_column="context")[1].stratum == "topic 1"


def test_images_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    source = table(photo=[{"bytes": b"no image", "path": None}] * N)
    source = source.cast_column("photo", datasets.Image())
    with pytest.raises(InputError, match="would not be read: 'photo'"):
        data.load_records(source)


def test_formats_of_a_dataset_hide_nothing() -> None:
    source = table(context=[SENTENCE] * N)
    source.set_format("numpy", columns=["prompt", "response"])
    with pytest.raises(InputError, match="would not be read: 'context'"):
        data.load_records(source)
    assert data.load_records(source.select([3]), ignore_columns=["context"]) == [Pair("p3", "r")]


# --- prompts and responses ---


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([{"role": "user", "content": "hi"}], r"'prompt' has .*role.*of type list: whole conv"),
        ({"text": "hi"}, "of type dict: whole conversations are read from"),
        (3, "'prompt' has 3 in row 0 .* of type int: write it as the text"),
        (True, "of type bool"),
        (float("nan"), "'prompt' has no text in row 0 "),
    ],
)
def test_prompts_that_are_no_texts(value: Any, message: str) -> None:
    source = datasets.Dataset.from_dict({"prompt": [value], "response": ["r"]})
    with pytest.raises(InputError, match=message):
        data.load_records(source)


@pytest.mark.parametrize(
    ("names", "named", "chosen"),
    [
        ("prompt response", {}, ("prompt", "response")),
        ("output instruction", {}, ("instruction", "output")),
        ("prompt question answer", {}, ("question", "answer")),
        ("prompt code", {"response": "code"}, ("prompt", "code")),
        ("prompt question answer", {"response": "answer"}, ("question", "answer")),
        ("prompt response question answer", {"ignored": ["response"]}, ("question", "answer")),
        (
            "prompt response code",
            {"response": "code", "ignored": ["response"]},
            ("prompt", "code"),
        ),
    ],
)
def test_which_columns_are_chosen(
    names: str, named: dict[str, Any], chosen: tuple[str, str]
) -> None:
    result = columns.choose(names.split(), **named)
    assert (result.prompt, result.response) == chosen
