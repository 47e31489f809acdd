from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import chat_template
from optuna_llmbo.lora import tokens
from optuna_llmbo.lora.records import Pair
from optuna_llmbo.lora.tokens import Example
from optuna_llmbo.lora.tokens import IGNORED
from tests.tiny import make_tiny_llm


PAIR = Pair("two and two?", "four, höchstens")


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = make_tiny_llm(tmp_path_factory.mktemp("chat"), chat=True)
    return AutoTokenizer.from_pretrained(folder)


def test_without_a_template(tiny: LanguageModel) -> None:
    (example,) = tokens.encode([PAIR], tiny.tokenizer, 100)
    decode = tiny.tokenizer.decode
    assert decode(example.ids[: example.n_prompt]) == "two and two?\n"
    assert decode(example.ids[example.n_prompt :]) == "four, höchstens<eos>"
    assert example.n_response == len("four, höchstens".encode()) + 1


def test_with_a_template(chat) -> None:  # type: ignore[no-untyped-def]
    (example,) = tokens.encode([PAIR], chat, 100)
    assert chat.decode(example.ids[: example.n_prompt]) == "<user>two and two?<assistant>"
    assert chat.decode(example.ids[example.n_prompt :]) == "four, höchstens<eos>"


def test_a_template_that_rewrites_its_prompt(chat, warnings_logged: list[str]) -> None:  # type: ignore[no-untyped-def]
    """The loss starts where the two differ, as TRL's does; it still ends."""
    tokenizer = AutoTokenizer.from_pretrained(chat.name_or_path)
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['content'] }}|{% endfor %}"
        "{% if add_generation_prompt %}<think>{% endif %}"
    )
    (example,) = tokens.encode([PAIR], tokenizer, 100)
    assert tokenizer.decode(example.ids) == "two and two?|four, höchstens|<eos>"
    assert tokenizer.decode(example.ids[example.n_prompt :]) == "four, höchstens|<eos>"
    (line,) = warnings_logged
    assert "does not go on from its own prompt with the answer" in line


def test_a_template_that_writes_nothing(chat) -> None:  # type: ignore[no-untyped-def]
    tokenizer = AutoTokenizer.from_pretrained(chat.name_or_path)
    tokenizer.chat_template = (
        "{% if add_generation_prompt %}{{ messages[0]['content'] }}{% endif %}"
    )
    with pytest.raises(InputError, match="writes nothing of the turns .* --chat-template"):
        tokens.encode([PAIR], tokenizer, 100)


def test_a_template_that_leaves_texts_out(chat, warnings_logged: list[str]) -> None:  # type: ignore[no-untyped-def]
    tokenizer = AutoTokenizer.from_pretrained(chat.name_or_path)
    tokens.encode([PAIR, Pair(" spaces ", " around ")], tokenizer, 200)
    assert warnings_logged == []
    last = "message['content'].split('</think>')[-1] | trim"
    tokenizer.chat_template = tokenizer.chat_template.replace("message['content']", last)
    tokens.encode([PAIR, Pair(" spaces ", " around ")], tokenizer, 200)
    assert warnings_logged == []
    (example,) = tokens.encode([Pair("a", "<think>long</think>b")], tokenizer, 200)
    assert tokenizer.decode(example.ids) == "<user>a<assistant>b<eos>"
    (line,) = warnings_logged
    assert "does not write all texts as they are in the data" in line


def test_a_template_that_fails(chat) -> None:  # type: ignore[no-untyped-def]
    tokenizer = AutoTokenizer.from_pretrained(chat.name_or_path)
    tokenizer.chat_template = "{{ raise_exception('only system turns') }}"
    with pytest.raises(InputError, match="chat template cannot render .* only system turns"):
        tokens.encode([PAIR], tokenizer, 100)


FORMATS = ["%d %b %Y", "%B %d, %Y", "%Y-%m-%d", "%A %-d. %H:%M", "%x %X", "%y%j"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_template_writes_the_same_date_on_every_day(chat, form: str) -> None:  # type: ignore[no-untyped-def]
    tokenizer = AutoTokenizer.from_pretrained(chat.name_or_path)
    assert not chat_template.writes_the_date(tokenizer)
    tokenizer.chat_template = (
        "{%- if strftime_now is defined %}{% set form = '" + form + "' %}"
        "{%- set day = strftime_now(form) %}{%- else %}{% set day = 'none' %}{%- endif %}"
        "Today is {{ day }}.\n" + tokenizer.chat_template
    )
    assert chat_template.writes_the_date(tokenizer)
    (example,) = tokens.encode([PAIR], tokenizer, 200)
    day = chat_template.TEMPLATE_DAY.strftime(form)
    expected = f"Today is {day}.\n<user>two and two?<assistant>four, höchstens<eos>"
    assert tokenizer.decode(example.ids) == expected


def test_the_date_of_llama_3(chat) -> None:  # type: ignore[no-untyped-def]
    """Its template takes a date of the caller's, then the clock's, then this one."""
    tokenizer = AutoTokenizer.from_pretrained(chat.name_or_path)
    tokenizer.chat_template = (
        "{%- if not date_string is defined %}"
        "{%- if strftime_now is defined %}{%- set date_string = strftime_now('%d %b %Y') %}"
        "{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}{%- endif %}"
        "{{- 'Today Date: ' + date_string + '\\n\\n' }}" + tokenizer.chat_template
    )
    (example,) = tokens.encode([PAIR], tokenizer, 200)
    text = tokenizer.decode(example.ids[: example.n_prompt])
    assert text == "Today Date: 26 Jul 2024\n\n<user>two and two?<assistant>"


def test_a_template_with_randomness(chat) -> None:  # type: ignore[no-untyped-def]
    tokenizer = AutoTokenizer.from_pretrained(chat.name_or_path)
    tokenizer.chat_template = (
        "{{ range(99999) | random }} {{ range(99999) | random }}" + tokenizer.chat_template
    )
    with pytest.raises(InputError, match="renders the same example differently each time"):
        tokens.encode([PAIR], tokenizer, 200)


def test_a_response_of_no_tokens(tiny_llm: Path) -> None:
    from tokenizers import normalizers

    tokenizer = AutoTokenizer.from_pretrained(tiny_llm)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("four, höchstens", "")
    with pytest.raises(InputError, match="makes no tokens of the response 'four, höchstens'"):
        tokens.encode([PAIR], tokenizer, 100)


def test_a_tokenizer_without_an_end(tiny_llm: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llm)
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="no end-of-sequence token"):
        tokens.encode([PAIR], tokenizer, 100)


def test_a_beginning_of_sequence_token_is_kept(tiny_llm: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = AutoTokenizer.from_pretrained(tiny_llm, bos_token="<pad>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<pad> $A", special_tokens=[("<pad>", tokenizer.pad_token_id)]
    )
    (example,) = tokens.encode([PAIR], tokenizer, 100)
    assert tokenizer.decode(example.ids) == "<pad>two and two?\nfour, höchstens<eos>"
    assert tokenizer.decode(example.ids[: example.n_prompt]) == "<pad>two and two?\n"


def test_long_examples_are_left_out_whole(tiny: LanguageModel) -> None:
    pairs = [Pair("a" * n, "b") for n in (1, 5, 9)]  # 3 more: line break, b, end
    kept = tokens.encode(pairs, tiny.tokenizer, 8)
    assert [example.record for example in kept] == pairs[:2]
    assert len(kept[1]) == 8


def test_collate_marks_what_predicts_the_response(examples: list[Example]) -> None:
    batch = tokens.collate(examples[:5], torch.device("cpu"))
    for row, example in enumerate(examples[:5]):
        length = len(example)
        assert batch.ids[row, :length].tolist() == example.ids.tolist()
        assert batch.mask[row].tolist() == [1] * length + [0] * (batch.mask.shape[1] - length)
        positions = (batch.labels[row] != IGNORED).nonzero().flatten()
        assert positions.tolist() == list(range(example.n_prompt - 1, length - 1))
        assert batch.labels[row, positions].tolist() == example.ids[example.n_prompt :].tolist()


def test_by_length_keeps_every_example(examples: list[Example]) -> None:
    groups = list(tokens.by_length(examples, 7))
    assert [len(group) for group in groups] == [7, 7, 7, 3]
    assert sorted(id(e) for group in groups for e in group) == sorted(map(id, examples))
    assert len(groups[0][-1]) <= len(groups[1][0])


def test_digest_sees_tokens_order_and_prompts(examples: list[Example]) -> None:
    digest = tokens.digest(examples)
    assert digest == tokens.digest(list(examples))
    assert digest != tokens.digest(examples[::-1])
    assert digest != tokens.digest(examples[:-1])
    first = examples[0]
    moved = Example(first.record, first.ids, first.n_prompt + 1)
    assert digest != tokens.digest([moved, *examples[1:]])
    mask = first.trained.copy()
    mask[-1] = False
    assert digest != tokens.digest([Example(first.record, first.ids, first.n_prompt, mask)])
