"""Turns are read as they are written, and what cannot be trained on is said."""

from __future__ import annotations

from typing import Any

import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.messages import messages_of


ASK = {"role": "user", "content": "hi"}
SAY = {"role": "assistant", "content": "ho"}


def call(**function: Any) -> dict[str, Any]:
    calls = [{"id": "1", "type": "function", "function": {"name": "add", **function}}]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def test_turns_stay_what_they_are() -> None:
    turns: list[Any] = [
        {"role": "system", "content": ""},
        ASK,
        {**SAY, "name": "bot", "thinking": None},
    ]
    assert messages_of(turns, "here") == (*turns[:2], {**SAY, "name": "bot"})
    assert turns[2]["thinking"] is None, "the caller's own turns are left alone"


def test_parts_of_a_text_are_put_together() -> None:
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    assert messages_of([{"role": "user", "content": parts}, SAY], "here") == (ASK, SAY)


@pytest.mark.parametrize("written", ['{"a": {"b": null}}', {"a": {"b": None}}])
def test_arguments_of_a_call(written: Any) -> None:
    (turn,) = messages_of([call(arguments=written)], "here")
    assert turn["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": {"b": None}}}
    (turn,) = messages_of([call(arguments={"a": 1, "b": None})], "here", fills_none=True)
    assert turn["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    (turn,) = messages_of([call(arguments="")], "here")
    assert turn["tool_calls"][0]["function"]["arguments"] == {}


def test_sharegpt_calls() -> None:
    turns = [
        {"from": "human", "value": "add"},
        {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
        {"from": "observation", "value": "1"},
        {"from": "gpt", "value": "one"},
    ]
    read = messages_of(turns, "here")
    assert [turn["role"] for turn in read] == ["user", "assistant", "tool", "assistant"]
    assert read[1]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ("hi", "here has 'hi': expected a list of turns"),
        ([], r"here has \[\]: expected a list"),
        (["hi"], "turn 0 is 'hi': expected an object with role and content"),
        ([{"role": "bot", "content": "x"}], "turn 0 has the role 'bot': expected one of system"),
        ([{"content": "x"}], "has the role None"),
        ([{"from": "narrator", "value": "x"}], "is from 'narrator': expected one of system, hum"),
        ([{"role": "user", "content": None}], "has no content: write what the user says"),
        ([{"role": "user", "content": 3}], "has the content 3: expected a text"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
            "Images and sound cannot be trained on",
        ),
        ([ASK, {"role": "assistant", "content": " "}], "turn 1 is an empty turn of the assistant"),
        ([ASK, {"role": "assistant", "content": "", "tool_calls": []}], "turn 1 is an empty turn"),
        ([ASK, {**SAY, "weight": 0.5}], "has the weight 0.5: expected 0 or 1"),
        ([call(arguments="{a")], "the arguments of 'add' has '{a', which is no JSON"),
        ([{**SAY, "tool_calls": [{"arguments": {}}]}], "calls the tool .* expected an object"),
    ],
)
def test_turns_that_are_none(turns: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        messages_of(turns, "here")
