"""Read token sequences after one passage with the model's own forward pass over whole prompts.

For models with bidirectional attention, for models that the trie cannot read exactly, and as the
reference for all others.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.embedding.trie import TokenIds
from optuna_llmbo.embedding.truncated import Body
from optuna_llmbo.embedding.truncated import embedding_width
from optuna_llmbo.embedding.truncated import Pooling


_BATCH = {"cpu": 4}
"""Prompts per batch: on a CPU, more overflow its caches and take longer."""
_BATCH_ELSEWHERE = 64


class PlainReader:
    """Embed token sequences after one passage, prompt by prompt.

    Args:
        llm: the frozen model.
        passage: token ids before every sequence.
        ending: token ids after every sequence, such as BERT's `[SEP]`.
        pooling: how states become an embedding; "mean" has no learnable token in the prompt.
        layer: see `Body`.
    """

    def __init__(
        self,
        llm: LanguageModel,
        passage: TokenIds,
        ending: TokenIds,
        pooling: Pooling,
        layer: int | None,
    ) -> None:
        self._body = Body(llm, layer)
        self._passage = passage
        self._ending = ending
        self._pooling = pooling

    def embed(self, sequences: Sequence[TokenIds], token: Tensor) -> Tensor:
        """Embed n sequences in batches of similar length.

        The backward pass runs each batch again, so memory holds one batch at a time.

        Args:
            sequences: n sequences, none empty.
            token: (d_model,) float32; gradients reach it.

        Returns:
            (n, width) float32 on the CPU.
        """
        size = _BATCH.get(self._body.device.type, _BATCH_ELSEWHERE)
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        rows = torch.empty(len(order), embedding_width(self._body.d_model, self._pooling))
        for start in range(0, len(order), size):
            indices = order[start : start + size]
            batch = [sequences[i] for i in indices]
            rows[indices] = checkpoint(self._embed, batch, token, use_reentrant=False)
        return rows

    def prepare(self, sequences: Sequence[TokenIds]) -> Callable[[Tensor], Tensor]:
        """Return `embed` as a function of the token; there is nothing to prepare."""
        return lambda token: self.embed(sequences, token)

    def _embed(self, sequences: Sequence[TokenIds], token: Tensor) -> Tensor:
        t0 = len(self._passage)
        prompts = [self._prompt(sequence, token) for sequence in sequences]
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        inputs = pad_sequence(prompts, batch_first=True)
        places = torch.arange(inputs.shape[1])
        mask = (places < lengths[:, None]).to(inputs.device)
        states = self._body(inputs, attention_mask=mask.long()).float()
        pooled = []
        if self._pooling != "mean":
            pooled.append(states[torch.arange(len(prompts)), lengths - 1])
        if self._pooling != "last":
            ends = t0 + torch.tensor([len(sequence) for sequence in sequences])
            inside = ((places >= t0) & (places < ends[:, None])).to(states)
            pooled.append((states * inside[..., None]).sum(1) / inside.sum(1, keepdim=True))
        return torch.cat(pooled, dim=1).cpu()

    def _prompt(self, sequence: TokenIds, token: Tensor) -> Tensor:
        """Embed one prompt's tokens, (t, d_model), the learnable token last."""
        embedded = self._body.embed_tokens([*self._passage, *sequence, *self._ending])
        if self._pooling == "mean":
            return embedded
        return torch.cat([embedded, token.to(embedded)[None]])
