"""Pairs -> token ids with the response marked, and their batches."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
import datetime
import hashlib
from typing import Any

import jinja2
import numpy as np
import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.lora.data import Pair


IGNORED = -100  # label of a position without loss, torch's `ignore_index`

TEMPLATE_DAY = datetime.datetime(2024, 7, 26, 12)
"""What chat templates that write the current date are told, so that the same examples have the
same tokens on every day. It is the day that Llama 3.1 and 3.2 write where there is no clock."""

_CHUNK = 1000  # pairs given to the tokenizer at once
_CLOCK = "strftime_now"  # what `transformers` gives to templates


@dataclass(frozen=True)
class Example:
    """One tokenized pair."""

    pair: Pair
    ids: np.ndarray
    """(t,) int32: prompt, response, end of sequence."""
    n_prompt: int
    """Number of prompt ids, on which there is no loss; at least 1."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_response(self) -> int:
        """Tokens with loss: the response and the end of the sequence."""
        return len(self.ids) - self.n_prompt


@dataclass(frozen=True)
class Batch:
    """Examples padded on the right to one length t."""

    ids: torch.Tensor
    """(n, t) int64."""
    mask: torch.Tensor
    """(n, t) int64, 1 at real tokens."""
    labels: torch.Tensor
    """(n, t) int64: at each position the token to predict there, that is the next one, or
    `IGNORED`. They are shifted already."""


def encode(pairs: Sequence[Pair], tokenizer: Any, max_length: int) -> list[Example]:
    """Tokenize pairs, leaving out those that are too long; nothing is truncated.

    A tokenizer with a chat template renders a user and an assistant turn. Without one, the text is
    the prompt, a line break and the response. Prompt and response are tokenized separately, so
    that the loss starts exactly where a generated answer would.

    Args:
        pairs: prompts and responses.
        tokenizer: a tokenizer of `transformers`.
        max_length: maximum number of tokens, prompt and end of sequence included.

    Raises:
        InputError: if the template cannot render a pair or renders it differently each time,
            there is no end-of-sequence token, or the tokenizer makes nothing of a response.
    """
    if tokenizer.eos_token_id is None:
        raise InputError("the tokenizer has no end-of-sequence token: set tokenizer.eos_token.")
    examples = []
    template = template_on_a_fixed_day(tokenizer)
    if any(
        _render(pair, tokenizer, template) != _render(pair, tokenizer, template)
        for pair in pairs[:1]
    ):
        raise InputError(
            "the tokenizer's chat template renders the same example differently each time, so "
            "that trials cannot be compared: give the tokenizer a template without randomness."
        )
    for start in range(0, len(pairs), _CHUNK):
        chunk = pairs[start : start + _CHUNK]
        rendered = [_render(pair, tokenizer, template) for pair in chunk]
        prompts = _ids(tokenizer, [prompt for prompt, _ in rendered])
        responses = _ids(tokenizer, [response for _, response in rendered])
        begin = _begin(tokenizer)
        for pair, prompt, response in zip(chunk, prompts, responses, strict=True):
            if not response:
                raise InputError(
                    f"the tokenizer makes no tokens of the response {pair.response[:60]!r}: check "
                    "that its files are complete and belong to the model."
                )
            prompt = begin + prompt
            ids = prompt + _ended(response, tokenizer)
            if len(ids) <= max_length:
                examples.append(Example(pair, np.asarray(ids, dtype=np.int32), len(prompt)))
    return examples


def collate(examples: Sequence[Example], device: torch.device) -> Batch:
    """Right-pad examples to one length; under causal attention no real token sees the padding."""
    shape = (len(examples), max(map(len, examples)))
    ids = torch.zeros(shape, dtype=torch.int64)
    mask = torch.zeros(shape, dtype=torch.int64)
    labels = torch.full(shape, IGNORED, dtype=torch.int64)
    for row, example in enumerate(examples):
        tokens = torch.from_numpy(example.ids).long()
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
        first = example.n_prompt - 1  # the prompt's last token predicts the first of the response
        labels[row, first : len(tokens) - 1] = tokens[example.n_prompt :]
    return Batch(ids.to(device), mask.to(device), labels.to(device))


def by_length(examples: Sequence[Example], size: int) -> Iterator[list[Example]]:
    """Groups of at most `size` examples of similar length, which saves padding."""
    for positions in in_batches([len(example) for example in examples], size):
        yield [examples[i] for i in positions]


def in_batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Positions in groups of at most `size` items of similar length, the shortest first."""
    ordered = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def digest(examples: Sequence[Example]) -> str:
    """Short hash of the token ids, in order."""
    state = hashlib.sha256()
    for example in examples:
        state.update(np.array([len(example), example.n_prompt], dtype=np.int64).tobytes())
        state.update(example.ids.tobytes())
    return state.hexdigest()[:16]


def writes_the_date(tokenizer: Any) -> bool:
    """Whether the tokenizer's chat template writes the current date."""
    return bool(tokenizer.chat_template) and _CLOCK in tokenizer.get_chat_template()


def template_on_a_fixed_day(tokenizer: Any) -> str | None:
    """The chat template with `TEMPLATE_DAY` as the current date; None if it writes none."""
    return DAY + tokenizer.get_chat_template() if writes_the_date(tokenizer) else None


def _day() -> str:
    """A macro that hides the clock of templates: `TEMPLATE_DAY` in the directives of a format."""
    ways = [f"%{flag}{one}" for one in "aAbBcdDeFHIjmMpSTUwxXyYZ" for flag in ("-", "")]
    values = {way: TEMPLATE_DAY.strftime(way) for way in ways}
    filters = "".join(f"|replace({w!r}, {v!r})" for w, v in values.items() if v != w)
    return f"{{%- macro {_CLOCK}(format) -%}}{{{{ format{filters} }}}}{{%- endmacro -%}}"


DAY = _day()
"""Before a template, makes `TEMPLATE_DAY` the current date."""


def _render(pair: Pair, tokenizer: Any, template: str | None) -> tuple[str, str]:
    """The text before the start of the response, and the rest."""
    if not tokenizer.chat_template:
        return pair.prompt + "\n", pair.response
    turns = [
        {"role": "user", "content": pair.prompt},
        {"role": "assistant", "content": pair.response},
    ]
    try:
        prompt = tokenizer.apply_chat_template(
            turns[:1], chat_template=template, tokenize=False, add_generation_prompt=True
        )
        whole = tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False)
    except (jinja2.TemplateError, TypeError, KeyError) as error:
        raise InputError(
            f"the tokenizer's chat template cannot render a user's and an assistant's turn: "
            f"{error}"
        ) from error
    response = pair.response
    if whole.startswith(prompt):
        response = whole[len(prompt) :].rstrip()
    else:  # some templates rewrite past turns
        warn_once(
            "the tokenizer's chat template does not go on from its own prompt with the answer: "
            "responses follow it as they are, with the end of the sequence."
        )
    if pair.prompt.strip() not in prompt or pair.response.strip() not in response:
        warn_once(
            "the tokenizer's chat template does not write all texts as they are in the data (some "
            "leave out the reasoning in answers): the model is trained on what the template "
            "writes."
        )
    return prompt, response


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return [list(ids) for ids in tokenizer(list(texts), add_special_tokens=False).input_ids]


def _begin(tokenizer: Any) -> list[int]:
    """The beginning-of-sequence token, if the tokenizer sets one; a template writes its own."""
    alone = tokenizer("").input_ids
    has_one = not tokenizer.chat_template and tokenizer.bos_token_id in alone
    return [tokenizer.bos_token_id] if has_one else []


def _ended(response: list[int], tokenizer: Any) -> list[int]:
    """The response with an end: a template's own end-of-turn token, or end of sequence."""
    if response and response[-1] in tokenizer.all_special_ids:
        return response
    return [*response, tokenizer.eos_token_id]
