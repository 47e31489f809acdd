"""Assignments -> embeddings: tokens, the reader that serves the model, and what is known already.

Shapes: n configurations, d_model the model's width, width that of the embeddings: twice d_model
with the pooling "both", else d_model.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import functools
import hashlib
from typing import Any
from typing import Literal
from typing import Protocol

import torch
from torch import Tensor

from optuna_llmbo._util.torch_state import default_torch
from optuna_llmbo.embedding.cache import EmbeddingCache
from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.embedding.language_model import quiet_transformers
from optuna_llmbo.embedding.plain_reader import PlainReader
from optuna_llmbo.embedding.trie import TokenIds
from optuna_llmbo.embedding.trie_reader import TrieReader
from optuna_llmbo.embedding.truncated import Body
from optuna_llmbo.embedding.truncated import early_layer
from optuna_llmbo.embedding.truncated import embedding_width
from optuna_llmbo.embedding.truncated import n_layers
from optuna_llmbo.embedding.truncated import Pooling
from optuna_llmbo.embedding.truncated import POOLINGS
from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once


Assignment = tuple[str, ...]
"""The lines of one configuration, as `Prompt.assignment` writes them."""

MEMORY_BYTES = 512 * 2**20

_LEAST_ROOM = 128
"""Tokens for an assignment that the passage must leave."""
_AT_ONCE = 4096
"""New embeddings are kept on disk after so many, so that an interruption loses no more."""
_LINES_REMEMBERED = 2**16
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
_TOLERANCE_LOW_PRECISION = 0.25
_SAMPLES: tuple[Assignment, ...] = (
    ("\nalpha: low 1", "\nbeta: high 2"),
    ("\nalpha: low 1", "\nbeta: high 34"),
    ("\nalpha: medium 5",),
)
# What a model may raise that is not made to be read through a trie: each fails in its own place.
_FAILURES = (AttributeError, KeyError, IndexError, RuntimeError, TypeError, ValueError)


class SequenceReader(Protocol):
    """Embeds token sequences behind a passage: `TrieReader` or `PlainReader`."""

    def embed(self, sequences: Sequence[TokenIds], token: Tensor) -> Tensor:
        """(n, width) float32 on the CPU; differentiable in the token, (d_model,)."""

    def prepare(self, sequences: Sequence[TokenIds]) -> Callable[[Tensor], Tensor]:
        """`embed` for many values of the token."""


class Encoder:
    """Embeds assignments behind one passage with a frozen language model.

    A causal model is read through a trie, which equals its plain forward pass; a model for which
    that does not hold is read by the plain forward pass, with a warning. A model whose attention
    looks both ways (the BERT family) is read by the plain forward pass too; its embedding is the
    mean over the assignment's tokens, and there is no learnable token, on which all its states
    would depend.

    Embeddings at the token's neutral value are kept in memory and in the user's cache folder.

    Args:
        llm: the frozen model.
        passage: what stands before every assignment.
        pooling: "last", the learnable token's state; "mean" over the assignment's tokens; or
            "both", one after the other. Default None: "last", or "mean" where there is no
            learnable token.
        layer: whose states, counted from 1; the layers above are not run. "early" is the last of
            the first quarter, and the last of all for an encoder-only model, which is read whole.
            Default None: the last.
        memory_bytes: bound of the keys and values that are held, the passage's apart.

    Raises:
        InputError: for a pooling or a layer that the model does not have.
    """

    def __init__(
        self,
        llm: LanguageModel,
        passage: str,
        *,
        pooling: Pooling | None = None,
        layer: int | Literal["early"] | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._llm = llm
        self._tokenize = functools.lru_cache(_LINES_REMEMBERED)(self._line_ids)
        with default_torch(), quiet_transformers():
            looks_ahead = self._looks_ahead()
            self._pooling = _check_pooling(pooling, llm, looks_ahead)
            start, end = self._special_tokens()
            self._ending = end if looks_ahead else ()
            self._passage = self._fitting_passage((*start, *self._line_ids(passage)), start)
            if layer == "early":
                layer = None if looks_ahead else early_layer(llm)
            plain = PlainReader(llm, self._passage, self._ending, self._pooling, layer)
            self._plain = plain
            self._reader: SequenceReader = plain
            if not looks_ahead:
                self._reader = self._trie_reader(layer, memory_bytes) or plain
        self._cache = EmbeddingCache(self._kind(layer), self.width)

    @property
    def d_model(self) -> int:
        """Width of the learnable token."""
        return self._llm.d_model

    @property
    def has_token(self) -> bool:
        """Whether embeddings depend on the learnable token."""
        return self._pooling != "mean"

    @property
    def width(self) -> int:
        """Width of the embeddings."""
        return embedding_width(self._llm.d_model, self._pooling)

    @functools.cached_property
    def _neutral(self) -> Tensor:
        eos = self._llm.tokenizer.eos_token_id
        embedding = self._llm.body.get_input_embeddings()
        with torch.no_grad():
            if eos is None:
                return embedding.weight.float().mean(dim=0).cpu()
            # Called, not looked up: some models scale what they look up.
            ids = torch.tensor([eos], device=self._llm.device)
            return embedding(ids)[0].detach().float().cpu()

    def neutral_token(self) -> Tensor:
        """The learnable token's starting point: the end-of-sequence token, (d_model,) float32.

        The model has been trained to close a text with it, and it adds no content of its own.
        """
        return self._neutral.clone()

    def read(self, assignments: Sequence[Assignment]) -> Reading:
        """n assignments ready to be embedded.

        Raises:
            InputError: if one has no tokens, or more than the model can read behind the passage.
        """
        sequences = [self._sequence(assignment) for assignment in assignments]
        return Reading(self, sequences)

    def embed_naively(self, assignments: Sequence[Assignment], token: Tensor) -> Tensor:
        """The embeddings by the model's plain forward pass of every whole prompt: the yardstick.

        Args:
            assignments: n of them.
            token: (d_model,) value of the learnable token.

        Returns:
            (n, width) float32 on the CPU.
        """
        with default_torch(), torch.no_grad():
            return self._plain.embed([self._sequence(a) for a in assignments], token)

    def _embed(self, sequences: Sequence[TokenIds], token: Tensor) -> Tensor:
        """Embeddings without gradient of n different sequences, (n, width)."""
        if self.has_token and not torch.equal(token.detach(), self._neutral):
            return self._reader.embed(sequences, token)
        known = self._cache.get(sequences)
        missing = sorted(sequence for sequence in sequences if sequence not in known)
        for start in range(0, len(missing), _AT_ONCE):
            some = missing[start : start + _AT_ONCE]
            new = self._reader.embed(some, token).numpy()
            self._cache.put(some, new)
            known |= zip(some, new, strict=True)
        rows = torch.empty(len(sequences), self.width)
        for i, sequence in enumerate(sequences):
            rows[i] = torch.from_numpy(known[sequence])
        return rows

    def _sequence(self, assignment: Assignment) -> TokenIds:
        """Token ids of an assignment, line by line, so that equal beginnings stay equal."""
        sequence = tuple(token_id for line in assignment for token_id in self._tokenize(line))
        if not sequence:
            raise InputError("an assignment is empty: expected at least one line of text.")
        most = self._most_positions
        n = len(self._passage) + len(sequence) + len(self._ending) + 1
        if most is not None and n > most:
            raise InputError(
                f"the prompt of a configuration has {n} tokens, {self._llm.source} reads at most "
                f"{most}. Shorten the categorical choices or the knowledge, or choose a model "
                "with a longer context."
            )
        return sequence

    def _line_ids(self, line: str) -> TokenIds:
        return tuple(self._llm.tokenizer(line, add_special_tokens=False).input_ids)

    def _special_tokens(self) -> tuple[TokenIds, TokenIds]:
        """What the tokenizer puts before and behind a text."""
        text = self._line_ids("a")
        whole = tuple(self._llm.tokenizer("a").input_ids)
        starts = range(len(whole) - len(text) + 1)
        place = next((i for i in starts if whole[i : i + len(text)] == text), len(whole))
        return whole[:place], whole[place + len(text) :]

    @property
    def _most_positions(self) -> int | None:
        return getattr(self._llm.body.config, "max_position_embeddings", None)

    def _fitting_passage(self, passage: TokenIds, start: TokenIds) -> TokenIds:
        """The passage; without it if it leaves too little room for what is to be read."""
        most = self._most_positions
        if most is None or len(passage) + _LEAST_ROOM <= most:
            return passage
        warn_once(
            f"{self._llm.source} reads at most {most} tokens, and the passage of what is known "
            f"about the hyperparameters has {len(passage)}: the assignments are read without it."
        )
        return start

    def _looks_ahead(self) -> bool:
        """Whether states depend on later tokens."""
        body = Body(self._llm, None)
        text = [token_id for line in _SAMPLES[0] for token_id in self._line_ids(line)]
        with torch.no_grad():
            inputs = body.embed_tokens([text])
            whole, beginning = body(inputs), body(inputs[:, :-1])
        difference = (whole[:, :-1] - beginning).float().abs().max()
        return float(difference / whole.float().abs().mean()) > self._tolerance

    @property
    def _tolerance(self) -> float:
        return _TOLERANCE.get(self._llm.dtype, _TOLERANCE_LOW_PRECISION)

    def _trie_reader(self, layer: int | None, memory_bytes: int) -> TrieReader | None:
        """The trie reader if it gives what the plain forward pass gives; else a warning."""
        samples = [self._sequence(sample) for sample in _SAMPLES]
        with torch.no_grad():
            exact = self._plain.embed(samples[1:2], self._neutral)
            try:
                reader = TrieReader(self._llm, self._passage, self._pooling, layer, memory_bytes)
                ours = reader.embed(samples, self._neutral)[1:2]
            except torch.OutOfMemoryError:
                raise
            except _FAILURES as error:
                self._warn_of_plain_reading(f"{type(error).__name__}: {error}")
                return None
        difference = float((ours - exact).abs().max() / exact.abs().mean())
        if difference <= self._tolerance:
            return reader
        self._warn_of_plain_reading(f"relative difference {difference:.2g}")
        return None

    def _warn_of_plain_reading(self, reason: str) -> None:
        warn_once(
            f"{self._llm.source} cannot be read exactly with a shared passage "
            f"({reason.splitlines()[0][:200]}), so every prompt is read as a whole, which takes "
            "many times longer. Models of the Llama, Qwen, Mistral, Gemma 3, Phi and GPT-2 "
            "families can be."
        )

    def _kind(self, layer: int | None) -> dict[str, Any]:
        """All that determines an embedding at the neutral token, the assignment apart."""
        import transformers

        return {
            "weights": self._llm.fingerprint,
            "passage": self._passage,
            "ending": self._ending,
            "token": _digest(self._neutral) if self.has_token else None,
            "layer": layer or n_layers(self._llm),
            "pooling": self._pooling,
            "dtype": str(self._llm.dtype),
            "device": self._llm.device.type,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        }


class Reading:
    """n assignments behind an encoder's passage.

    Args:
        encoder: what reads them.
        sequences: their token ids.
    """

    def __init__(self, encoder: Encoder, sequences: Sequence[TokenIds]) -> None:
        self._encoder = encoder
        place = {sequence: i for i, sequence in enumerate(dict.fromkeys(sequences))}
        self._different = list(place)
        self._rows = [place[sequence] for sequence in sequences]
        self._prepared: Callable[[Tensor], Tensor] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def neutral_token(self) -> Tensor:
        """The encoder's `neutral_token`."""
        return self._encoder.neutral_token()

    def embed(self, token: Tensor) -> Tensor:
        """The embeddings for one value of the learnable token.

        Differentiable in `token`: the method's only trainable input to the model. With the
        pooling "mean" nothing depends on it.

        Args:
            token: (d_model,) float32 value of the learnable token.

        Returns:
            (n, width) float32 on the CPU.
        """
        encoder = self._encoder
        with default_torch():
            trains = encoder.has_token and token.requires_grad and torch.is_grad_enabled()
            if not trains:
                with torch.no_grad():
                    return encoder._embed(self._different, token)[self._rows]
            if self._prepared is None:
                self._prepared = encoder._reader.prepare(self._different)
            return self._prepared(token)[self._rows]


def _check_pooling(pooling: Pooling | None, llm: LanguageModel, looks_ahead: bool) -> Pooling:
    if pooling is not None and pooling not in POOLINGS:
        raise InputError(f"pooling must be one of {', '.join(POOLINGS)}; got {pooling!r}.")
    if looks_ahead and pooling not in (None, "mean"):
        raise InputError(
            f"pooling must be 'mean' for {llm.source}, whose attention looks both ways: there is "
            f"no last token that sums the prompt up; got {pooling!r}."
        )
    return pooling or ("mean" if looks_ahead else "last")


def _digest(token: Tensor) -> str:
    return hashlib.sha256(token.numpy().tobytes()).hexdigest()
