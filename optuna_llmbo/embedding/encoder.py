"""Assignments -> embeddings: tokenize, look up the cache, read the rest with the model.

Shapes: n configurations, d_model width of the model, width of the embeddings (2 d_model with the
pooling "both", else d_model).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import functools
import hashlib
import math
from typing import Any
from typing import Literal
from typing import Protocol
from typing import TypeVar

import torch
from torch import Tensor

from optuna_llmbo._util.torch_state import default_torch
from optuna_llmbo._util.torch_state import TorchThread
from optuna_llmbo.embedding.cache import EmbeddingCache
from optuna_llmbo.embedding.language_model import LanguageModel
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


T = TypeVar("T")

Assignment = tuple[str, ...]
"""One configuration's lines of text, as `Prompt.assignment` writes them."""

MEMORY_BYTES = 512 * 2**20

_LEAST_ROOM = 128
"""Tokens that the passage must leave for the assignment."""
_AT_ONCE = 4096
"""New embeddings computed before they are written to disk: the most an interruption can lose."""
_LINES_REMEMBERED = 2**16
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
_TOLERANCE_LOW_PRECISION = 0.25
_SAMPLES: tuple[Assignment, ...] = (
    ("\nalpha: low 1", "\nbeta: high 2"),
    ("\nalpha: low 1", "\nbeta: high 34"),
    ("\nalpha: medium 5",),
)
# Errors from models that cannot be read through a trie; each family fails in a different place.
_FAILURES = (AttributeError, KeyError, IndexError, RuntimeError, TypeError, ValueError)


class SequenceReader(Protocol):
    """Embeds token sequences behind a passage: `TrieReader` or `PlainReader`."""

    def embed(self, sequences: Sequence[TokenIds], token: Tensor) -> Tensor:
        """Return (n, width) float32 on the CPU; differentiable in the token, (d_model,)."""

    def prepare(self, sequences: Sequence[TokenIds]) -> Callable[[Tensor], Tensor]:
        """Return `embed` as a function of the token, for many values of it."""


class Encoder:
    """Embeds assignments behind one passage with a frozen language model.

    A causal model is read through a trie, which gives the same states as the plain forward pass.
    Where it does not, the plain forward pass is used, with a warning. A model with bidirectional
    attention (the BERT family) also uses the plain forward pass; its embedding is the mean over
    the assignment's tokens, and it has no learnable token, since every state would depend on it.

    Embeddings at the token's neutral value are cached in memory and in the user's cache folder.

    Args:
        llm: the frozen model.
        passage: text that precedes every assignment.
        pooling: "last" for the learnable token's state; "mean" over the assignment's tokens;
            "both" concatenates the two. Default None: "last", or "mean" where there is no
            learnable token.
        layer: layer whose states are used, counted from 1; the layers above are not run. "early"
            is the last layer of the first quarter, or the very last for an encoder-only model,
            which is read whole. Default None: the last.
        memory_bytes: bound on the keys and values held in memory, the passage's excluded.

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
        self._thread = TorchThread()
        self._tokenize = functools.lru_cache(_LINES_REMEMBERED)(self._line_ids)
        self._run(lambda: self._prepare(passage, pooling, layer, memory_bytes))

    def _run(self, function: Callable[[], T]) -> T:
        """Call a function in the encoder's own thread, which uses as many threads as there are,
        whoever calls, and knows no modes."""

        def isolated() -> T:
            with default_torch(), torch.enable_grad():
                return function()

        return self._thread.run(isolated)

    def _prepare(
        self,
        passage: str,
        pooling: Pooling | None,
        layer: int | Literal["early"] | None,
        memory_bytes: int,
    ) -> None:
        with torch.no_grad():
            looks_ahead = self._looks_ahead()
            self._pooling = _check_pooling(pooling, self._llm, looks_ahead)
            start, end = self._special_tokens()
            self._ending = end if looks_ahead else ()
            self._passage = self._fitting_passage((*start, *self._line_ids(passage)), start)
            if layer == "early":
                layer = None if looks_ahead else early_layer(self._llm)
            plain = PlainReader(self._llm, self._passage, self._ending, self._pooling, layer)
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
            # Called rather than indexed: some models scale their embeddings in `forward`.
            ids = torch.tensor([eos], device=self._llm.device)
            return embedding(ids)[0].detach().float().cpu()

    def neutral_token(self) -> Tensor:
        """Return the learnable token's initial value: the end-of-sequence embedding.

        The model was trained to end a text with it, and it adds no content of its own.

        Returns:
            (d_model,) float32.
        """
        return self._neutral.clone()

    def read(self, assignments: Sequence[Assignment]) -> Reading:
        """Tokenize n assignments, ready to be embedded.

        Raises:
            InputError: if an assignment has no tokens, or more than the model can read after
                the passage.
        """
        sequences = [self._sequence(assignment) for assignment in assignments]
        return Reading(self, sequences)

    def n_tokens(self, assignment: Assignment) -> int:
        """Count the tokens of an assignment."""
        return sum(len(self._tokenize(line)) for line in assignment)

    @property
    def room(self) -> float:
        """Most tokens that an assignment may have after the passage; infinite if any number."""
        most = self._most_positions
        taken = len(self._passage) + len(self._ending) + 1
        return math.inf if most is None else most - taken

    def fits(self, assignment: Assignment) -> bool:
        """Check whether the model can read an assignment after the passage."""
        return self.n_tokens(assignment) <= self.room

    def embed_naively(self, assignments: Sequence[Assignment], token: Tensor) -> Tensor:
        """Embed with the plain forward pass over each whole prompt: the reference for `read`.

        Args:
            assignments: n assignments.
            token: (d_model,) value of the learnable token.

        Returns:
            (n, width) float32 on the CPU.
        """
        sequences = [self._sequence(assignment) for assignment in assignments]
        token = token.detach()
        return self._run(lambda: self._plain.embed(sequences, token).detach())

    def _embed(self, sequences: Sequence[TokenIds], token: Tensor) -> Tensor:
        """Embed n distinct sequences, (n, width)."""
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
        """Tokenize an assignment line by line, so that common prefixes stay common."""
        sequence = tuple(token_id for line in assignment for token_id in self._tokenize(line))
        if not sequence:
            raise InputError("an assignment is empty; expected at least one line of text.")
        if len(sequence) > self.room:
            n = len(self._passage) + len(sequence) + len(self._ending) + 1
            raise InputError(
                f"the prompt of a configuration has {n} tokens; {self._llm.source} reads at most "
                f"{self._most_positions}. Shorten the categorical choices or the knowledge, or "
                "choose a model with a longer context."
            )
        return sequence

    def _line_ids(self, line: str) -> TokenIds:
        return tuple(self._llm.tokenizer(line, add_special_tokens=False, verbose=False).input_ids)

    def _special_tokens(self) -> tuple[TokenIds, TokenIds]:
        """Find the token ids that the tokenizer adds before and after a text."""
        text = self._line_ids("a")
        whole = tuple(self._llm.tokenizer("a").input_ids)
        starts = range(len(whole) - len(text) + 1)
        place = next((i for i in starts if whole[i : i + len(text)] == text), len(whole))
        return whole[:place], whole[place + len(text) :]

    @property
    def _most_positions(self) -> int | None:
        return getattr(self._llm.body.config, "max_position_embeddings", None)

    def _fitting_passage(self, passage: TokenIds, start: TokenIds) -> TokenIds:
        """Return the passage, or only its start if it leaves too little room for assignments."""
        most = self._most_positions
        if most is None or len(passage) + _LEAST_ROOM <= most:
            return passage
        warn_once(
            f"{self._llm.source} reads at most {most} tokens, and the passage of knowledge about "
            f"the hyperparameters has {len(passage)}; configurations are read without it."
        )
        return start

    def _looks_ahead(self) -> bool:
        """Check whether states depend on later tokens."""
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
        """Return the trie reader if it agrees with the plain forward pass; else warn, and None."""
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
            f"({reason.splitlines()[0][:200]}), so every prompt is read whole, which takes many "
            "times longer. Models of the Llama, Qwen, Mistral, Gemma 3, Phi and GPT-2 families "
            "do not have this problem."
        )

    def _kind(self, layer: int | None) -> dict[str, Any]:
        """Return what determines an embedding at the neutral token, except the assignment."""
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
    """n assignments, tokenized, to be embedded after an encoder's passage.

    Args:
        encoder: the encoder that embeds them.
        sequences: token ids of each assignment.
    """

    def __init__(self, encoder: Encoder, sequences: Sequence[TokenIds]) -> None:
        self._encoder = encoder
        place = {sequence: i for i, sequence in enumerate(dict.fromkeys(sequences))}
        self._different = list(place)
        self._rows = [place[sequence] for sequence in sequences]
        self._prepared: Callable[[Tensor], Tensor] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def part(self, rows: Sequence[int]) -> Reading:
        """Return the reading of some of the assignments, in the order of their indices."""
        return Reading(self._encoder, [self._different[self._rows[row]] for row in rows])

    def neutral_token(self) -> Tensor:
        """Return the encoder's `neutral_token`."""
        return self._encoder.neutral_token()

    def embed(self, token: Tensor) -> Tensor:
        """Compute the embeddings for one value of the learnable token.

        Differentiable in `token`, the only trainable input to the model. With the pooling "mean"
        the embeddings do not depend on it.

        Args:
            token: (d_model,) float32 value of the learnable token.

        Returns:
            (n, width) float32 on the CPU.
        """
        encoder = self._encoder
        if not (encoder.has_token and token.requires_grad and torch.is_grad_enabled()):
            return encoder._run(lambda: self._embed_once(token.detach()))[self._rows]
        if self._prepared is None:
            self._prepared = encoder._run(lambda: encoder._reader.prepare(self._different))
        embedding: Tensor = _Embedding.apply(token, self._prepared, encoder._run)
        return embedding[self._rows]

    def _embed_once(self, token: Tensor) -> Tensor:
        with torch.no_grad():
            return self._encoder._embed(self._different, token)


class _Embedding(torch.autograd.Function):
    """Embeddings (n, width) of a token (d_model,), and their gradient, both in another thread."""

    @staticmethod
    def forward(
        ctx: Any,
        token: Tensor,
        embed: Callable[[Tensor], Tensor],
        run: Callable[[Callable[[], Tensor]], Tensor],
    ) -> Tensor:
        """The embeddings."""
        own = token.detach().requires_grad_()
        embedding = run(lambda: embed(own))
        ctx.run, ctx.own, ctx.embedding = run, own, embedding
        return embedding.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient with respect to the token."""
        (gradient,) = ctx.run(
            lambda: torch.autograd.grad(ctx.embedding, ctx.own, gradients[0], retain_graph=True)
        )
        return gradient, None, None


def _check_pooling(pooling: Pooling | None, llm: LanguageModel, looks_ahead: bool) -> Pooling:
    if pooling is not None and pooling not in POOLINGS:
        raise InputError(f"pooling must be one of {', '.join(POOLINGS)}; got {pooling!r}.")
    if looks_ahead and pooling not in (None, "mean"):
        raise InputError(
            f"pooling must be 'mean' for {llm.source}, whose attention is bidirectional: no last "
            f"token sums up the prompt; got {pooling!r}."
        )
    return pooling or ("mean" if looks_ahead else "last")


def _digest(token: Tensor) -> str:
    return hashlib.sha256(token.numpy().tobytes()).hexdigest()
