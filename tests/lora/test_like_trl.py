"""Every format has the tokens and the loss that TRL's SFTTrainer makes of the same rows."""

from __future__ import annotations

from collections.abc import Callable
import copy
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from transformers import AutoTokenizer

from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.lora import chat_template
from optuna_llmbo.lora import tokens
from optuna_llmbo.lora.data import load_records
from optuna_llmbo.lora.tokens import IGNORED
from tests.tiny import make_tiny_llm


trl = pytest.importorskip("trl")
data_utils = pytest.importorskip("trl.data_utils")

Labelled = list[tuple[list[int], list[int]]]

SYSTEM, ASK, SAY = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Two and two?"},
    {"role": "assistant", "content": "Four."},
)
AGAIN, MORE = (
    {"role": "user", "content": "And three?"},
    {"role": "assistant", "content": "Seven, höchstens."},
)
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {"type": "object", "properties": {"a": {"type": "number"}}},
    },
}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}],
}
RESULT = {"role": "tool", "name": "add", "content": "4"}

MARKED = (
    "{%- if tools %}tools {{ tools | tojson }}\n{% endif %}"
    "{%- for message in messages %}<{{ message.role }}>"
    "{%- if message.role == 'assistant' %}{% generation %}{{ message.content }}"
    "{%- for call in message.tool_calls %}{{ call.function | tojson }}{% endfor %}{{ eos_token }}"
    "{%- endgeneration %}\n{% else %}{{ message.content }}\n{% endif %}{% endfor %}"
    "{%- if add_generation_prompt %}<assistant>{% if polite %}please {% endif %}{% endif %}"
)
UNMARKED = MARKED.replace("{% generation %}", "").replace("{%- endgeneration %}", "")


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llm(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def of_trl(tiny_folder: Path, tmp_path: Path) -> Callable[..., Labelled]:
    def make(rows: datasets.Dataset, tokenizer: Any, **settings: Any) -> Labelled:
        arguments = {"max_length": None, "use_cpu": True, "report_to": [], **settings}
        trainer = trl.SFTTrainer(
            model=str(tiny_folder),
            args=trl.SFTConfig(output_dir=str(tmp_path), **arguments),
            train_dataset=rows,
            processing_class=tokenizer,
        )
        made = trainer.train_dataset
        return [(list(row["input_ids"]), list(row["labels"])) for row in made]

    return make


def of_ours(source: Any, tokenizer: Any, **how: Any) -> Labelled:
    made = tokens.encode(load_records(source), tokenizer, 10_000, **how)
    return [labelled(example) for example in made]


def labelled(example: tokens.Example) -> tuple[list[int], list[int]]:
    ids = example.ids.tolist()
    labels = [i if on else IGNORED for i, on in zip(ids, example.trained, strict=True)]
    return ids, labels


def without_first(made: Labelled) -> Labelled:
    """Nothing predicts the first token: TRL labels it, and the shift takes it away."""
    return [(ids, [IGNORED, *labels[1:]]) for ids, labels in made]


def tokenizer_with(folder: Path, template: str | None) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    return tokenizer


def table(**columns: list[Any]) -> datasets.Dataset:
    return datasets.Dataset.from_dict(columns)


FORMATS: dict[str, tuple[datasets.Dataset, str | None, dict[str, Any]]] = {
    "text": (table(text=["Once upon a time.", "There was<eos>"]), None, {}),
    "prompt and completion as text": (
        table(prompt=["Two and two?", "And\n"], completion=[" Four.", "so on"]),
        None,
        {},
    ),
    "prompt and completion as turns": (
        table(prompt=[[SYSTEM, ASK], [ASK, SAY, AGAIN]], completion=[[SAY], [MORE]]),
        UNMARKED,
        {},
    ),
    "prompt and completion with markers": (
        table(prompt=[[ASK]], completion=[[SAY]]),
        MARKED,
        {},
    ),
    "a completion of several turns": (
        table(prompt=[[ASK]], completion=[[SAY, AGAIN, MORE]]),
        MARKED,
        {"assistant_only_loss": True},
    ),
    "messages": (
        table(messages=[[SYSTEM, ASK, SAY, AGAIN, MORE], [ASK, SAY]]),
        MARKED,
        {"assistant_only_loss": True},
    ),
    "messages that end with the user": (
        table(messages=[[ASK, SAY, AGAIN]]),
        MARKED,
        {"assistant_only_loss": True},
    ),
    "arguments of the template": (
        table(prompt=[[ASK]], completion=[[SAY]], chat_template_kwargs=[{"polite": True}]),
        UNMARKED,
        {},
    ),
    "a model without a template": (
        table(messages=[[SYSTEM, ASK, SAY, AGAIN, MORE]]),
        chat_template.PLAIN,
        {"assistant_only_loss": True},
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", FORMATS)
def test_formats(name: str, tiny_folder: Path, of_trl: Callable[..., Labelled]) -> None:
    rows, template, settings = FORMATS[name]
    tokenizer = tokenizer_with(tiny_folder, template)
    expected = of_trl(rows, tokenizer, **settings)
    ours = tokenizer_with(tiny_folder, None if name.startswith("a model without") else template)
    assert of_ours(rows, ours) == without_first(expected)


@pytest.mark.long
def test_tools(tiny_folder: Path, of_trl: Callable[..., Labelled], tmp_path: Path) -> None:
    """OpenAI's arguments are JSON in a text: TRL is given the object that they say."""
    turns = [ASK, CALL, RESULT, SAY]
    tokenizer = tokenizer_with(tiny_folder, MARKED)
    rows = datasets.Dataset.from_list([{"messages": turns, "tools": [TOOL]}])
    expected = of_trl(rows, tokenizer, assistant_only_loss=True)
    assert of_ours(rows, tokenizer) == expected
    written: Any = copy.deepcopy({"messages": turns, "tools": [TOOL]})
    written["messages"][1]["tool_calls"][0]["function"]["arguments"] = '{"a": 2}'
    written["messages"][1]["content"] = None
    path = tmp_path / "openai.jsonl"
    path.write_text(json.dumps(written))
    assert of_ours(path, tokenizer) == expected


@pytest.mark.long
def test_pairs_are_a_prompt_and_a_completion(
    tiny_folder: Path, of_trl: Callable[..., Labelled]
) -> None:
    tokenizer = tokenizer_with(tiny_folder, UNMARKED)
    turns = table(
        prompt=[[SYSTEM, {"role": "user", "content": "Add.\n\n2, 2"}]], completion=[[SAY]]
    )
    expected = of_trl(turns, tokenizer)
    alpaca = table(instruction=["Add."], input=["2, 2"], output=["Four."], system=["Be brief."])
    assert of_ours(alpaca, tokenizer) == expected


@pytest.mark.long
def test_prefix_differences_are_the_markers(
    tiny_folder: Path, of_trl: Callable[..., Labelled]
) -> None:
    """A template without markers has the loss of the same one with them, end of turn included."""
    with_line = MARKED.replace("{%- endgeneration %}\n", "\n{% endgeneration %}")
    rows = table(messages=[[SYSTEM, ASK, SAY, AGAIN, MORE], [ASK, SAY, AGAIN]])
    marked = of_trl(rows, tokenizer_with(tiny_folder, with_line), assistant_only_loss=True)
    assert of_ours(rows, tokenizer_with(tiny_folder, UNMARKED)) == marked


@pytest.mark.long
def test_sharegpt(tiny_folder: Path, of_trl: Callable[..., Labelled]) -> None:
    """TRL takes the speakers for roles; ShareGPT's are called human and gpt."""
    tokenizer = tokenizer_with(tiny_folder, MARKED)

    def rows(user: str, assistant: str) -> datasets.Dataset:
        said = ["Two and two?", "Four.", "And three?", "Seven."]
        speakers = [user, assistant] * 2
        turns = [{"from": f, "value": v} for f, v in zip(speakers, said, strict=True)]
        return table(conversations=[[{"from": "system", "value": "Be brief."}, *turns]])

    converted = rows("user", "assistant").map(
        data_utils.maybe_convert_to_chatml, remove_columns="conversations"
    )
    expected = of_trl(converted, tokenizer, assistant_only_loss=True)
    assert of_ours(rows("user", "assistant"), tokenizer) == expected
    assert of_ours(rows("human", "gpt"), tokenizer) == expected
    as_it_is = of_trl(rows("user", "assistant"), tokenizer)  # it has no loss on turns alone here
    assert [ids for ids, _ in as_it_is] == [ids for ids, _ in expected]


TOO_LONG = [
    ("right", "keep_start", 40, 0),
    ("right", "keep_start", 60, 1),
    ("right", "keep_start", 75, 2),
    ("right", "keep_start", 300, 2),
    ("left", "keep_end", 1, 0),
    ("left", "keep_end", 6, 2),
    ("left", "keep_end", 60, 2),
]


@pytest.mark.long
@pytest.mark.parametrize(("side", "mode", "length", "n"), TOO_LONG)
def test_truncation(
    side: str, mode: str, length: int, n: int, tiny_folder: Path, of_trl: Callable[..., Labelled]
) -> None:
    rows = table(messages=[[SYSTEM, ASK, SAY, AGAIN, MORE], [SYSTEM, SYSTEM, ASK, SAY]])
    tokenizer = tokenizer_with(tiny_folder, MARKED)
    settings = {"assistant_only_loss": True, "max_length": length, "truncation_mode": mode}
    whole = tokens.encode(load_records(rows), tokenizer, 10_000)
    cut = [tokens.cut(example, length, side) for example in whole]
    ours = [labelled(example) for example in cut if example is not None]
    assert len(ours) == n
    theirs = without_first(of_trl(rows, tokenizer, **settings)) if n else []
    assert ours == theirs


@pytest.mark.slow
def test_the_embedded_model(of_trl: Callable[..., Labelled], tiny_folder: Path) -> None:
    """ChatML, with a line break behind the end of each turn, and a system prompt of its own."""
    tokenizer = load_model(resolve_source("embedded"), device="cpu").tokenizer
    pairs = table(prompt=[[ASK], [SYSTEM, ASK]], completion=[[SAY], [SAY]])
    expected = of_trl(pairs, tokenizer)
    assert of_ours(pairs, tokenizer) == expected
    assert tokenizer.decode([i for i in expected[0][1] if i != IGNORED]) == "Four.<|im_end|>\n"
    marked = copy.deepcopy(tokenizer)
    content = "message['content'] + '<|im_end|>' + '\n'"
    assert content in tokenizer.chat_template
    both = (
        "{% if message['role'] == 'assistant' %}{% generation %}{{ "
        + content
        + " }}{% endgeneration %}{% else %}{{ "
        + content
        + " }}{% endif %}"
    )
    start, end = tokenizer.chat_template.split(content)
    opened, _, head = start.rpartition("{{")
    closing = end.partition("}}")[2]
    marked.chat_template = opened + "{{" + head.rstrip(" +") + "}}" + both + closing
    chats = table(messages=[[SYSTEM, ASK, SAY, AGAIN, MORE], [ASK, SAY, AGAIN]])
    assert of_ours(chats, tokenizer) == of_trl(chats, marked, assistant_only_loss=True)
