"""Records -> token ids, with those marked that are trained on, and their batches."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
import hashlib
from typing import Any

import numpy as np
import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.records import ALL_TURNS
from optuna_llmbo.lora.records import Completion
from optuna_llmbo.lora.records import LEFT
from optuna_llmbo.lora.records import Record
from optuna_llmbo.lora.records import Text
from optuna_llmbo.lora.render import Marked
from optuna_llmbo.lora.render import Rendered
from optuna_llmbo.lora.render import Renderer


IGNORED = -100  # label of a position without loss, torch's `ignore_index`

_CHUNK = 1000  # records given to the tokenizer at once


@dataclass(frozen=True)
class Example:
    """One tokenized record."""

    record: Record
    ids: np.ndarray
    """(t,) int32."""
    n_prompt: int
    """Number of ids before the last answer, which an answer is generated from; at least 1."""
    mask: np.ndarray | None = None
    """(t,) bool: which ids the loss is on; None: all those behind the prompt. The first one is
    not, as nothing predicts it."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def trained(self) -> np.ndarray:
        """(t,) bool: which ids the loss is on."""
        return np.arange(len(self.ids)) >= self.n_prompt if self.mask is None else self.mask

    @property
    def n_response(self) -> int:
        """Tokens with loss: what the assistant says, with the ends of its turns."""
        return len(self.ids) - self.n_prompt if self.mask is None else int(self.mask.sum())


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


def encode(
    records: Sequence[Record], tokenizer: Any, max_length: int, *, train_on: str = ALL_TURNS
) -> list[Example]:
    """Tokenize records, leaving out those that are too long; `cut` shortens them instead.

    The ids, and those that the loss is on, are what TRL's `SFTTrainer` makes of the same records.
    `Renderer` says which these are; where prompt and answer are not told apart by the template,
    the loss starts at the first token in which the whole differs from the prompt.

    Args:
        records: all of one format.
        tokenizer: a tokenizer of `transformers`; without a chat template it gets
            `chat_template.PLAIN`.
        max_length: maximum number of tokens, prompt and end of sequence included.
        train_on: "all" of the assistant's turns, or the "last" one.

    Raises:
        InputError: if the template cannot render a record or renders it differently each time,
            there is no end-of-sequence token, or the tokenizer makes nothing of a response.
    """
    render = Renderer(tokenizer, train_on)
    if any(_is_random(render, record) for record in records[:1]):
        raise InputError(
            "the tokenizer's chat template renders the same example differently each time, so "
            "that trials cannot be compared: give the tokenizer a template without randomness."
        )
    examples: list[Example] = []
    for start in range(0, len(records), _CHUNK):
        examples += _encode(records[start : start + _CHUNK], render, tokenizer)
    _check_said(examples, tokenizer)
    return [example for example in examples if len(example) <= max_length]


def cut(example: Example, max_length: int, side: str) -> Example | None:
    """Cut an example to `max_length` ids at its "left" or "right".

    Returns:
        None if no token is left that the loss is on.
    """
    too_many = len(example) - max_length
    if too_many <= 0:
        return example
    kept = slice(too_many, None) if side == LEFT else slice(max_length)
    before = example.n_prompt - (too_many if side == LEFT else 0)
    mask = example.trained[kept].copy()
    mask[0] = False
    return _example(example.record, example.ids[kept], before, mask) if mask.any() else None


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
        places = torch.from_numpy(np.flatnonzero(example.trained))
        labels[row, places - 1] = tokens[places]  # each is predicted by the one before
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
    """Short hash of the token ids, in order, and of those that the loss is on."""
    state = hashlib.sha256()
    for example in examples:
        state.update(np.array([len(example), example.n_prompt], dtype=np.int64).tobytes())
        state.update(example.ids.tobytes())
        if example.mask is not None:
            state.update(example.mask.tobytes())
    return state.hexdigest()[:16]


def _is_random(render: Renderer, record: Record) -> bool:
    one, other = render(record), render(record)
    if isinstance(one, Marked) and isinstance(other, Marked):
        return not np.array_equal(one.ids, other.ids)
    return one != other


def _encode(records: Sequence[Record], render: Renderer, tokenizer: Any) -> list[Example]:
    made = [render(record) for record in records]
    plain = [one for one in made if isinstance(one, Rendered)]
    ids = iter(_ids(tokenizer, plain, plainly=isinstance(records[0], (Text, Completion))))
    return [
        _of_marked(record, one)
        if isinstance(one, Marked)
        else _of_rendered(record, one, [next(ids) for _ in _texts(one)])
        for record, one in zip(records, made, strict=True)
    ]


def _texts(one: Rendered) -> list[str]:
    """All texts of a record to tokenize: the whole, and what bounds that which is trained on."""
    return [one.text, *(text for span in one.spans for text in span if text is not None)]


def _ids(tokenizer: Any, rendered: Sequence[Rendered], *, plainly: bool) -> list[list[int]]:
    """Ids of all texts, in order; a template writes the beginning of the sequence itself."""
    texts = [text for one in rendered for text in _texts(one)]
    if not texts:
        return []
    return [list(ids) for ids in tokenizer(texts, add_special_tokens=plainly).input_ids]


def _of_marked(record: Record, marked: Marked) -> Example:
    behind = np.flatnonzero(~marked.trained[: int(marked.trained.nonzero()[0].max(initial=0))])
    last = int(behind.max(initial=-1)) + 1  # where the last run starts
    return _example(record, marked.ids, last, marked.trained.copy())


def _of_rendered(record: Record, one: Rendered, ids: Sequence[list[int]]) -> Example:
    whole, bounds = ids[0], iter(ids[1:])
    mask, start = np.zeros(len(whole), dtype=bool), 0
    for _, end in one.spans:
        start = _n_common(next(bounds), whole)
        stop = len(whole) if end is None else _n_common(next(bounds), whole)
        mask[start:stop] = True
    return _example(record, np.asarray(whole, dtype=np.int32), start, mask)


def _example(record: Record, ids: np.ndarray, n_prompt: int, mask: np.ndarray) -> Example:
    """An example; its mask is left out where it says the same as the prompt's length."""
    mask[:1] = False
    n_prompt = min(max(n_prompt, 1), len(ids))
    is_plain = np.array_equal(mask, np.arange(len(ids)) >= n_prompt)
    return Example(record, ids, n_prompt, None if is_plain else mask)


def _check_said(examples: Sequence[Example], tokenizer: Any) -> None:
    """Check that something is trained on besides the ends of turns."""
    special = tokenizer.all_special_ids
    for example in examples:
        silent = np.isin(example.ids[example.trained], special).all()
        if silent and (example.record.response.strip() or not example.n_response):
            raise InputError(
                f"the tokenizer makes no tokens of the response {example.record.response[:60]!r}: "
                "check that its files are complete and belong to the model."
            )


def _n_common(prefix: Sequence[int], whole: Sequence[int]) -> int:
    """How many ids two sequences share at their start."""
    pairs = enumerate(zip(prefix, whole, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(prefix), len(whole)))
