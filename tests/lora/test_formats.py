"""The formats that data come in, and what is said of those that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
import json
import logging
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import chat_template
from optuna_llmbo.lora import columns
from optuna_llmbo.lora import tokens
from optuna_llmbo.lora.data import load_records
from optuna_llmbo.lora.objective import LoRAObjective
from optuna_llmbo.lora.records import Completion
from optuna_llmbo.lora.records import Conversation
from optuna_llmbo.lora.records import Pair
from optuna_llmbo.lora.records import Text
from tests.lora.conftest import rows
from tests.tiny import make_tiny_llm


ASK, SAY = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}
SYSTEM = {"role": "system", "content": "rhyme"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def table(**of: list[Any]) -> datasets.Dataset:
    return datasets.Dataset.from_dict(of)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (table(messages=[[ASK, SAY]]), Conversation((ASK, SAY))),
        (table(conversations=[[ASK, SAY]], id=["7"]), Conversation((ASK, SAY))),
        (
            table(messages=[[ASK, SAY]], system=["rhyme"]),
            Conversation((SYSTEM, ASK, SAY)),
        ),
        (table(messages=[[ASK, SAY]], system_prompt=[" "]), Conversation((ASK, SAY))),
        (
            table(messages=[[ASK, SAY]], tools=[json.dumps([TOOL])]),
            Conversation((ASK, SAY), None, {"tools": [TOOL]}),
        ),
        (
            table(messages=[[ASK, SAY]], tools=[""], chat_template_kwargs=[{"deep": True}]),
            Conversation((ASK, SAY), None, {"deep": True}),
        ),
        (table(prompt=[[SYSTEM, ASK]], completion=[[SAY]]), Conversation((SYSTEM, ASK, SAY), 2)),
        (table(prompt=["a"], completion=["b"]), Completion("a", "b")),
        (table(text=["a"]), Text("a")),
        (table(prompt=["a"], response=["b"], system=["rhyme"]), Pair("a", "b", None, "rhyme")),
        (table(text=["a"], question=["b"], answer=["c"]), None),
        (table(messages=[[ASK, SAY]], prompt=["hi"]), None),
        (table(prompt=["a"], completion=["b"], system=["rhyme"]), None),
        (table(text=["a"], system=["rhyme"]), None),
    ],
)
def test_formats_are_recognized(source: datasets.Dataset, expected: Any) -> None:
    if expected is None:
        with pytest.raises(InputError, match="would not be read: .*--ignore-column"):
            load_records(source)
    else:
        assert load_records(source) == [expected]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (table(chosen=["a"], rejected=["b"]), "preferences .* --trl dpo.yaml"),
        (table(messages=[[ASK]]), "row 0 .* has no turn of the assistant to train on"),
        (
            table(messages=[[ASK, {**SAY, "weight": 0}]]),
            "row 0 .* has no turn of the assistant to train on",
        ),
        (table(prompt=[[ASK, SAY]], completion=[[ASK]]), "column 'completion', row 0 .* no turn"),
        (table(messages=["hi"]), "column 'messages', row 0 .* expected a list of turns"),
        (
            table(messages=[[SYSTEM, ASK, SAY]], system=["x"]),
            "a system prompt in a column of its own and another in its first turn",
        ),
        (table(messages=[[ASK, SAY]], tools=["{"]), "column 'tools', row 0 .* is no JSON"),
        (table(messages=[[ASK, SAY]], tools=['{"a": 1}']), "expected a list of tools"),
        (
            table(messages=[[ASK, SAY]], chat_template_kwargs=["[1]"]),
            "expected an object with arguments of the chat template",
        ),
    ],
)
def test_rows_out_of_format(source: datasets.Dataset, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_records(source)


def test_a_row_of_another_kind() -> None:
    with pytest.raises(InputError, match="'prompt' has .* of type list: whole conversations"):
        load_records(table(prompt=[[ASK]], response=[[SAY]]))
    with pytest.raises(InputError, match="column 'completion', row 0 .*'ho': expected a list"):
        load_records(table(prompt=[[ASK]], completion=["ho"]))


def test_a_format_in_a_line() -> None:
    assert str(columns.choose(["id", "messages", "tools"])) == "conversations (messages, tools)"
    alpaca = columns.choose(["instruction", "input", "output"])
    assert str(alpaca) == "prompts and responses (instruction, output, input)"


def test_parquet_fills_nested_objects_with_none(tmp_path: Path) -> None:
    """Arrow gives every object of a column the same keys."""
    other = {"type": "function", "function": {"name": "now", "parameters": {"x": "y"}}}
    source = datasets.Dataset.from_list(
        [{"messages": [ASK, SAY], "tools": [TOOL]}, {"messages": [ASK, SAY], "tools": [other]}]
    )
    source.to_parquet(str(tmp_path / "a.parquet"))
    for place in (source, tmp_path / "a.parquet", tmp_path):
        read = [vars(record)["arguments"]["tools"] for record in load_records(place)]
        assert read == [[TOOL], [other]]


# --- what the loss is on ---


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(make_tiny_llm(tmp_path_factory.mktemp("chat"), chat=True))


TWO_ANSWERS = Conversation((ASK, SAY, ASK, {"role": "assistant", "content": "hum"}))
ONE_IS_OUT = Conversation((ASK, {**SAY, "weight": 0}, *TWO_ANSWERS.messages[2:]))
MARKED = (
    "{% for message in messages %}{% if message.role == 'assistant' %}{% generation %}"
    "{{ message.content }}{{ eos_token }}{% endgeneration %}{% else %}{{ message.content }}?"
    "{% endif %}{% endfor %}"
)


def trained_text(record: Any, tokenizer: Any, **how: Any) -> str:
    (example,) = tokens.encode([record], tokenizer, 500, **how)
    assert example.n_response == example.trained.sum()
    shown = [
        i if on else None for i, on in zip(example.ids.tolist(), example.trained, strict=True)
    ]
    runs = np.split(np.array(shown, dtype=object), np.flatnonzero(np.diff(example.trained)) + 1)
    return "|".join(tokenizer.decode(list(run)) for run in runs if run[0] is not None)


@pytest.mark.parametrize("template", [None, MARKED, chat_template.PLAIN])
def test_turns_that_are_trained_on(template: str | None, tokenizer: Any) -> None:
    own = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    own.chat_template = template or own.chat_template
    assert trained_text(TWO_ANSWERS, own) == "ho<eos>|hum<eos>"
    assert trained_text(TWO_ANSWERS, own, train_on="last") == "hum<eos>"
    assert trained_text(ONE_IS_OUT, own) == "hum<eos>"
    ends_with_user = Conversation(TWO_ANSWERS.messages[:3])
    assert trained_text(ends_with_user, own) == "ho<eos>"
    last_is_out = Conversation((ASK, SAY, ASK, {**SAY, "weight": 0}))
    assert trained_text(last_is_out, own) == "ho<eos>"
    with pytest.raises(InputError, match="weight 0 .* nothing is trained on"):
        tokens.encode([last_is_out], own, 500, train_on="last")


def test_a_prompt_of_the_last_answer(tokenizer: Any) -> None:
    (example,) = tokens.encode([TWO_ANSWERS], tokenizer, 500)
    asked = tokenizer.decode(example.ids[: example.n_prompt])
    assert asked == "<user>hi<assistant>ho<eos><user>hi<assistant>"
    assert (example.record.prompt, example.record.response) == ("hi", "hum")


def test_a_template_that_rewrites_earlier_turns(tokenizer: Any) -> None:
    """As those that drop the reasoning of all answers but the last one."""
    own = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    if_answer = "{% if message['role'] == 'assistant' %}"
    if_last = if_answer.replace("if ", "if loop.last and ")
    own.chat_template = own.chat_template.replace(if_answer, f"{if_last}!{{% endif %}}{if_answer}")
    with pytest.raises(InputError, match="otherwise when others follow .*--train-on last.*TRL"):
        tokens.encode([TWO_ANSWERS], own, 500)
    assert trained_text(TWO_ANSWERS, own, train_on="last") == "hum!<eos>"


def test_a_template_without_tools(tokenizer: Any) -> None:
    with pytest.raises(InputError, match="leaves the tool 'add' out: .*--chat-template"):
        tokens.encode([Conversation((ASK, SAY), None, {"tools": [TOOL]})], tokenizer, 500)
    call = {"role": "assistant", "content": "", "tool_calls": [TOOL]}
    with pytest.raises(InputError, match="leaves the tool 'add' out"):
        tokens.encode([Conversation((ASK, call))], tokenizer, 500)


def test_a_pad_token_that_is_the_end(tokenizer: Any) -> None:
    """The end is trained on, and the padding is not read."""
    own = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    own.pad_token = own.eos_token
    made = tokens.encode([Pair("hi", "a"), Pair("hi", "a long one")], own, 500)
    batch = tokens.collate(made, torch.device("cpu"))
    for row, example in enumerate(made):
        labels = batch.labels[row]
        wanted = labels[labels != tokens.IGNORED].tolist()
        assert wanted == example.ids[example.trained].tolist()
        assert wanted[-1] == own.eos_token_id
        assert batch.mask[row].sum() == len(example)


# --- the objective ---


def chats(n: int) -> datasets.Dataset:
    more = {"role": "assistant", "content": "and on"}
    return table(
        messages=[
            [{"role": "user", "content": r["prompt"]}, SAY, {"role": "user", "content": "?"}, more]
            for r in rows(n)
        ],
        system=["count"] * n,
    )


def test_an_objective_on_conversations(
    make_objective: Callable[..., LoRAObjective], caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("optuna").propagate = True
    with caplog.at_level(logging.INFO, "optuna"):
        prepared = make_objective(train=chats(30)).prepare()
    assert "30 conversations (messages, system); the loss is on every turn" in caplog.text
    assert prepared.tokenizer.chat_template == chat_template.PLAIN
    assert prepared.train[0].mask is not None
    last = make_objective(train=chats(30), train_on="last").prepare()
    assert last.fingerprint["train_on"] == "last"
    assert last.base_loss != pytest.approx(prepared.base_loss)
    assert [e.record for e in last.train] == [e.record for e in prepared.train]


def test_a_template_from_a_file(
    make_objective: Callable[..., LoRAObjective], tmp_path: Path, tiny: LanguageModel
) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(MARKED)
    prepared = make_objective(train=chats(30), chat_template=path).prepare()
    assert prepared.tokenizer.chat_template == MARKED
    text = make_objective(train=chats(30), chat_template=MARKED).prepare()
    assert text.fingerprint == prepared.fingerprint
    assert len(prepared.fingerprint["chat_template"]) == 16
    for wrong, message in [
        (tmp_path / "none.jinja", "cannot read the chat template .*none.jinja"),
        ("{% for", "the chat template '{% for': "),
    ]:
        with pytest.raises(InputError, match=message):
            make_objective(chat_template=wrong).prepare()
    (tmp_path / "plain.txt").write_text("no template")
    with pytest.raises(InputError, match="holds no chat template"):
        make_objective(chat_template=tmp_path / "plain.txt").prepare()


@pytest.mark.parametrize("truncation", ["left", "right"])
def test_an_objective_that_cuts(
    truncation: str, make_objective: Callable[..., LoRAObjective], warnings_logged: list[str]
) -> None:
    long = {"role": "user", "content": "hi " * 40}
    source = table(messages=[[ASK, SAY, long, {**SAY, "content": f"{i}"}] for i in range(30)])
    prepared = make_objective(train=source, truncation=truncation, max_length=40).prepare()
    assert len(prepared.pool) + len(prepared.validation) == 30
    assert {len(example) for example in prepared.train} == {40}
    (line,) = [line for line in warnings_logged if "max_length" in line]
    assert f"30 of 30 training examples are cut at the {truncation}" in line
    with pytest.raises(InputError, match="all 30 training examples are longer"):
        make_objective(train=source, max_length=40).prepare()


def test_cutting_leaves_out_what_would_have_nothing_to_train_on(
    make_objective: Callable[..., LoRAObjective], warnings_logged: list[str]
) -> None:
    long = {"role": "user", "content": "hi " * 40}
    source = table(
        messages=[[ASK if i % 2 else long, {**SAY, "content": f"{i}"}] for i in range(60)]
    )
    prepared = make_objective(train=source, truncation="right", max_length=40).prepare()
    assert len(prepared.pool) + len(prepared.validation) == 30
    assert any(
        "30 of 60 training examples are left out, as nothing to train on would be left" in line
        for line in warnings_logged
    )


def test_texts_have_no_answers_to_compare(make_objective: Callable[..., LoRAObjective]) -> None:
    source = table(text=[f"{r['prompt']} {r['response']}" for r in rows(30)])
    assert make_objective(train=source).prepare().base_loss > 0
    with pytest.raises(InputError, match="'exact_match' compares answers, .* plain texts"):
        make_objective(train=source, metric="exact_match").prepare()
    with pytest.raises(InputError, match="truncation='right' may cut"):
        make_objective(metric="exact_match", truncation="right").prepare()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"truncation": "middle"}, "truncation must be one of drop, left, right; got 'middle'"),
        ({"train_on": "first"}, "train_on must be one of all, last; got 'first'"),
    ],
)
def test_unknown_options(
    option: dict[str, Any], message: str, make_objective: Callable[..., LoRAObjective]
) -> None:
    with pytest.raises(InputError, match=message):
        make_objective(**option).prepare()
