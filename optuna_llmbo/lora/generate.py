"""Answers of a model to the prompts of examples, in batches."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
from dataclasses import dataclass
import math
import numbers
from typing import Any

import numpy as np
import torch
import transformers

from optuna_llmbo.errors import check_at_least
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.evaluate import autocast
from optuna_llmbo.lora.evaluate import device_of
from optuna_llmbo.lora.memory import MicroBatch
from optuna_llmbo.lora.tokens import Example
from optuna_llmbo.lora.tokens import in_batches


Decided = Callable[[str, Example], bool]
"""(beginning of an answer, its example) -> whether more text cannot change what is measured."""

_LOOK_EVERY = 4
"""Tokens from one look at whether an answer is decided to the next."""


@dataclass(frozen=True)
class Decoding:
    """How answers are generated: greedily unless `temperature` is positive.

    Raises:
        InputError: if a value is out of range, or would have no effect.
    """

    max_new_tokens: int = 256
    batch_size: int = 16
    """Prompts answered at once; halved while memory runs out. Changes answers only by rounding,
    samples included."""
    temperature: float = 0.0
    """0: greedy; otherwise tokens are sampled from the logits divided by it."""
    top_p: float = 1.0
    """Sample from the likeliest tokens with this total probability, in (0, 1] (nucleus
    sampling, Holtzman et al. 2019, arXiv:1904.09751)."""
    seed: int = 0
    """Seed of the sampling. An example's position counts too, so that the same prompt asked twice
    gets two independent samples."""

    def __post_init__(self) -> None:
        check_at_least("max_new_tokens", self.max_new_tokens, 1)
        check_at_least("batch_size", self.batch_size, 1)
        check_at_least("seed", self.seed, 0)
        _check_number("temperature", self.temperature, "at least 0", lambda v: v >= 0)
        _check_number("top_p", self.top_p, "above 0 and at most 1", lambda v: 0 < v <= 1)
        if self.temperature == 0 and self.top_p != 1:
            raise InputError(
                f"top_p={self.top_p} has no effect without a temperature: set one above 0, or "
                "leave top_p out."
            )


def generate(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    decoding: Decoding | None = None,
    decided: Decided | None = None,
) -> list[str]:
    """Generate answers to the prompts of examples; their responses are not read.

    Prompts of similar length are left-padded to one length and continued with cached keys and
    values until each has ended or reached `max_new_tokens`. The model's own generation settings
    (sampling, penalties) are suspended meanwhile. With a temperature, tokens are sampled by the
    Gumbel-max trick (Maddison et al. 2014, arXiv:1411.0030, sec. 2): the largest of logit plus
    Gumbel noise, with independent noise per example.

    Args:
        model: a causal language model of `transformers`, with or without an adapter in it; left in
            evaluation mode.
        tokenizer: the model's.
        examples: n prompts, see `Example.n_prompt`.
        decoding: None: greedy, up to 256 tokens.
        decided: ends an answer early, once it returns true for the answer's beginning. A model
            that does not end its answers, as most base models, would otherwise write
            `max_new_tokens` for each. It is not asked where the tokenizer cleans up spaces, as the
            beginning may change there.

    Returns:
        n texts without special tokens, in the order of `examples`.

    Raises:
        InputError: if prompt and answer could be longer than the model reads, see
            `check_decoding`.
    """
    decoding = decoding or Decoding()
    check_decoding(model, examples, decoding)
    model.eval()
    if getattr(tokenizer, "clean_up_tokenization_spaces", False):
        decided = None
    ends = _ends(tokenizer, examples)
    with torch.no_grad(), autocast(model), _only_our_settings(model, decoding, ends):
        return MicroBatch(decoding.batch_size).fit(
            lambda size: _texts(model, tokenizer, examples, decoding, decided, size)
        )


def _texts(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    decoding: Decoding,
    decided: Decided | None,
    batch_size: int,
) -> list[str]:
    texts = [""] * len(examples)
    lengths = [example.n_prompt for example in examples]
    for places in in_batches(lengths, batch_size):
        batch = [examples[i] for i in places]
        look = None if decided is None else _Look(tokenizer, batch, decided)
        answers = _continue(model, batch, places, decoding, look)
        decoded = tokenizer.batch_decode(answers, skip_special_tokens=True)
        for place, text in zip(places, decoded, strict=True):
            texts[place] = text
    return texts


def check_decoding(model: Any, examples: Sequence[Example], decoding: Decoding) -> None:
    """Check that every prompt and its longest answer fit into what the model reads.

    Raises:
        InputError: if not.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    longest = max((example.n_prompt for example in examples), default=0)
    if positions is not None and longest + decoding.max_new_tokens > positions:
        raise InputError(
            f"the longest prompt has {longest} tokens and max_new_tokens is "
            f"{decoding.max_new_tokens}, together more than the {positions} that the model reads: "
            "lower max_new_tokens, or leave long prompts out (max_length)."
        )


def _continue(
    model: Any,
    examples: Sequence[Example],
    places: Sequence[int],
    decoding: Decoding,
    look: _Look | None,
) -> torch.Tensor:
    """(n, new) int64: the tokens after each prompt, padded after the end."""
    longest = max(example.n_prompt for example in examples)
    ids = torch.zeros((len(examples), longest), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, example in enumerate(examples):
        start = longest - example.n_prompt  # all answers start at the same position
        ids[row, start:] = torch.from_numpy(example.ids[: example.n_prompt])
        mask[row, start:] = 1
    device = device_of(model)
    processors = transformers.LogitsProcessorList()
    if decoding.temperature > 0:
        processors.append(transformers.TemperatureLogitsWarper(float(decoding.temperature)))
        processors.append(transformers.TopPLogitsWarper(float(decoding.top_p)))
        processors.append(_GumbelNoise(decoding.seed, places))
    criteria = transformers.StoppingCriteriaList([] if look is None else [look])
    out = model.generate(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        logits_processor=processors,
        stopping_criteria=criteria,
    )
    answers: torch.Tensor = out[:, longest:]
    return answers


class _Look(transformers.StoppingCriteria):
    """Looks at the answers every few tokens and ends those that are decided."""

    def __init__(self, tokenizer: Any, examples: Sequence[Example], decided: Decided) -> None:
        self.tokenizer = tokenizer
        self.examples = examples
        self.decided = decided
        self.start = max(example.n_prompt for example in examples)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        ended = torch.zeros(len(input_ids), dtype=torch.bool)
        if (input_ids.shape[1] - self.start) % _LOOK_EVERY == 0:
            texts = self.tokenizer.batch_decode(
                input_ids[:, self.start :], skip_special_tokens=True
            )
            for row, (text, example) in enumerate(zip(texts, self.examples, strict=True)):
                whole = text.rstrip("\ufffd")  # the bytes of a character that is not complete
                ended[row] = self.decided(whole, example)
        return ended.to(input_ids.device)


class _GumbelNoise(transformers.LogitsProcessor):
    """Add independent noise to each row of the scores, -log E with E ~ Exp(1)."""

    def __init__(self, seed: int, places: Sequence[int]) -> None:
        self.generators = [
            torch.Generator().manual_seed(
                int(np.random.SeedSequence((seed, place)).generate_state(1, np.uint64)[0] >> 1)
            )
            for place in places
        ]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        waiting = torch.empty(scores.shape, dtype=torch.float32)
        for row, generator in zip(waiting, self.generators, strict=True):
            row.exponential_(generator=generator)
        return scores - waiting.log().to(scores.device)


@contextlib.contextmanager
def _only_our_settings(model: Any, decoding: Decoding, ends: list[int]) -> Iterator[None]:
    """Replace the model's generation settings, from which `generate` would fill up ours."""
    own = model.generation_config
    model.generation_config = transformers.GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        do_sample=False,
        use_cache=True,
        eos_token_id=ends,
        pad_token_id=ends[0],  # masked in prompts, and left out of the text after their ends
    )
    try:
        yield
    finally:
        model.generation_config = own


def _ends(tokenizer: Any, examples: Sequence[Example]) -> list[int]:
    """Tokens that end an answer: end of sequence, and end of turn if responses have it."""
    last = {int(example.ids[-1]) for example in examples} & set(tokenizer.all_special_ids)
    if tokenizer.eos_token_id is None and not last:
        raise InputError("the tokenizer has no end-of-sequence token: set tokenizer.eos_token.")
    return sorted(last | {tokenizer.eos_token_id} - {None})


def _check_number(name: str, value: Any, expected: str, allowed: Any) -> None:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not allowed(value):
        raise InputError(f"{name} must be a number {expected}; got {value!r}.")
