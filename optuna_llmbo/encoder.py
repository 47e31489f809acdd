"""Assignments -> embeddings, exactly, reading as few tokens as possible.

Attention in a causal model looks back only. So the shared passage is read once; the assignments
behind it are laid out as a trie in one sequence, each position seeing the passage and its own
ancestors, so that common beginnings are read once too; and the learnable token is one more
position at the end of each assignment, whose past does not depend on it. A new value of the
token, and a step of its training, costs one position a configuration.

Shapes: n configurations, t positions, t0 positions of the passage, L layers, h key-value heads,
d_model the model's width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optuna_llmbo.errors import InputError
from optuna_llmbo.llm import LanguageModel


Assignment = tuple[str, ...]
"""The lines of one configuration, as `Prompt.assignment` writes them."""

_BLOCK_POSITIONS = 512
_TOKENS_AT_ONCE = 64
_CACHE_BYTES = 512 * 2**20
_SELF_CHECK_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
_SELF_CHECK_TOLERANCE_LOW_PRECISION = 0.25


@dataclass(frozen=True)
class Trie:
    """Token sequences that share their common beginnings."""

    token_ids: list[int]
    """(t,) one node a distinct beginning."""
    depths: list[int]
    """(t,) distance to the root's children."""
    paths: list[list[int]]
    """For each sequence the nodes from its first token to its last."""

    def ancestor_mask(self) -> Tensor:
        """(t, t) bool: row i is True at node i and at its ancestors."""
        mask = torch.zeros(len(self.token_ids), len(self.token_ids), dtype=torch.bool)
        for path in self.paths:
            for depth, node in enumerate(path):
                mask[node, path[: depth + 1]] = True
        return mask


def build_trie(sequences: Sequence[Sequence[int]]) -> Trie:
    """Merge the common beginnings of token sequences."""
    children: dict[tuple[int, int], int] = {}
    token_ids: list[int] = []
    depths: list[int] = []
    paths = []
    for sequence in sequences:
        path: list[int] = []
        for depth, token_id in enumerate(sequence):
            edge = (path[-1] if path else -1, token_id)
            if edge not in children:
                children[edge] = len(token_ids)
                token_ids.append(token_id)
                depths.append(depth)
            path.append(children[edge])
        paths.append(path)
    return Trie(token_ids, depths, paths)


class Encoder:
    """Embeds assignments behind one passage with a frozen causal language model.

    What has been read is remembered, up to 512 MiB of keys and values, the least recently used
    dropped first.

    Args:
        llm: the frozen model.
        passage: what stands before every assignment.

    Raises:
        InputError: if the model cannot be read this way exactly: the result differs from its
            plain forward pass.
    """

    def __init__(self, llm: LanguageModel, passage: str) -> None:
        self._llm = llm
        self._body = llm.model.base_model
        self._embedding = llm.model.get_input_embeddings()
        self._memory: OrderedDict[Assignment, Tensor] = OrderedDict()
        self._line_ids: dict[str, list[int]] = {}
        self._passage_ids = list(llm.tokenizer(passage).input_ids)
        self._passage_kv = self._read_passage()
        self._check_against_plain_forward()

    @property
    def d_model(self) -> int:
        """Width of the embeddings."""
        return self._llm.d_model

    def neutral_token(self) -> Tensor:
        """The learnable token's starting point: the end-of-sequence token, (d_model,) float32.

        The model has been trained to close a text with it, and it adds no content of its own.
        """
        eos = self._llm.tokenizer.eos_token_id
        weight = self._embedding.weight
        row = weight.mean(dim=0) if eos is None else weight[eos]
        return row.detach().float().cpu()

    def read(self, assignments: Sequence[Assignment]) -> Reading:
        """Read n assignments, those not remembered in one go, and keep their keys and values."""
        missing = [a for a in dict.fromkeys(assignments) if a not in self._memory]
        for block in self._blocks(missing):
            self._read_block(block)
        kv = []
        for assignment in assignments:
            self._memory.move_to_end(assignment)
            kv.append(self._memory[assignment])
        self._forget()
        return Reading(self, kv)

    def embed_naively(self, assignments: Sequence[Assignment], token: Tensor) -> Tensor:
        """The same embeddings by the plain forward pass, one prompt at a time: the yardstick.

        Args:
            assignments: n of them.
            token: (d_model,) value of the learnable token.

        Returns:
            (n, d_model) float32.
        """
        rows = []
        with torch.no_grad():
            for assignment in assignments:
                ids = [*self._passage_ids, *self._ids(assignment)]
                embedded = self._embedding(self._tensor(ids))
                last = token.to(embedded.device, embedded.dtype)[None]
                inputs = torch.cat([embedded, last])[None]
                rows.append(self._body(inputs_embeds=inputs, use_cache=False)[0][0, -1].float())
        return torch.stack(rows).cpu()

    def _read_block(self, assignments: Sequence[Assignment]) -> None:
        trie = build_trie([self._ids(assignment) for assignment in assignments])
        t0, t = len(self._passage_ids), len(trie.token_ids)
        mask = torch.ones(t, t0 + t, dtype=torch.bool)
        mask[:, t0:] = trie.ancestor_mask()
        positions = self._tensor(trie.depths) + t0
        with torch.no_grad():
            embedded = self._embedding(self._tensor(trie.token_ids))
            _, cache = self._forward(embedded, mask, positions, self._passage_kv)
            kv = _keys_and_values(cache)[..., t0:, :]
        for assignment, path in zip(assignments, trie.paths, strict=True):
            self._memory[assignment] = kv[..., path, :]

    def _read_passage(self) -> Tensor:
        t0 = len(self._passage_ids)
        mask = torch.ones(t0, t0, dtype=torch.bool).tril()
        positions = torch.arange(t0, device=self._llm.device)
        with torch.no_grad():
            embedded = self._embedding(self._tensor(self._passage_ids))
            _, cache = self._forward(embedded, mask, positions, None)
        return _keys_and_values(cache)

    def _forward(
        self, inputs: Tensor, mask: Tensor, positions: Tensor, past: Tensor | None
    ) -> tuple[Tensor, Any]:
        """Run the model on one sequence with its own mask and positions behind a given past.

        Args:
            inputs: (t, d_model) embedded tokens.
            mask: (t, t_past + t) bool, True where a position may look.
            positions: (t,) int64.
            past: (L, 2, h, t_past, head width), or None.

        Returns:
            The last layer's hidden states (t, d_model), and the cache with past and new ones.
        """
        from transformers import DynamicCache

        cache = DynamicCache()
        for layer, (keys, values) in enumerate(past if past is not None else ()):
            cache.update(keys[None], values[None], layer)
        bias = torch.zeros(mask.shape, dtype=inputs.dtype)
        bias.masked_fill_(~mask, torch.finfo(inputs.dtype).min)
        output = self._body(
            inputs_embeds=inputs[None],
            attention_mask=bias.to(inputs.device)[None, None],
            position_ids=positions[None],
            past_key_values=cache,
            use_cache=True,
        )
        return output.last_hidden_state[0], cache

    def _blocks(self, assignments: Sequence[Assignment]) -> Iterator[list[Assignment]]:
        """Cut assignments into groups of bounded size, neighbours in the trie together."""
        block: list[Assignment] = []
        size = 0
        previous: list[int] = []
        for ids, assignment in sorted((self._ids(a), a) for a in assignments):
            size += len(ids) - _common_beginning(ids, previous)
            if block and size > _BLOCK_POSITIONS:
                yield block
                block, size = [], len(ids)
            block.append(assignment)
            previous = ids
        if block:
            yield block

    def _ids(self, assignment: Assignment) -> list[int]:
        """Token ids of an assignment, line by line, so that equal beginnings stay equal."""
        for line in assignment:
            if line not in self._line_ids:
                ids = self._llm.tokenizer(line, add_special_tokens=False).input_ids
                self._line_ids[line] = list(ids)
        return [token_id for line in assignment for token_id in self._line_ids[line]]

    def _forget(self) -> None:
        size = sum(kv.numel() * kv.element_size() for kv in self._memory.values())
        while size > _CACHE_BYTES:
            _, kv = self._memory.popitem(last=False)
            size -= kv.numel() * kv.element_size()

    def _tensor(self, ids: Sequence[int]) -> Tensor:
        return torch.tensor(ids, dtype=torch.int64, device=self._llm.device)

    def _check_against_plain_forward(self) -> None:
        samples = [("alpha = 1\n", "beta = 2\n"), ("alpha = 1\n", "beta = 34\n")]
        token = self.neutral_token()
        exact = self.embed_naively(samples, token)
        with torch.no_grad():
            ours = self.read(samples).embed(token)
        self._memory.clear()
        allowed = _SELF_CHECK_TOLERANCE.get(self._llm.dtype, _SELF_CHECK_TOLERANCE_LOW_PRECISION)
        difference = float((ours - exact).abs().max() / exact.abs().mean())
        if not difference <= allowed:
            raise InputError(
                f"the language model {self._llm.source} cannot be read exactly with a shared "
                f"passage (relative difference {difference:.2g}, at most {allowed:g} is "
                "accepted): its attention or positions are of an unsupported kind. Choose a "
                'model of the Llama, Qwen or Mistral family, or kernel="numeric".'
            )


class Reading:
    """n assignments that have been read: all but the learnable token's own position.

    Args:
        encoder: what read them.
        kv: for each assignment (L, 2, h, t_i, head width), its keys and values.
    """

    def __init__(self, encoder: Encoder, kv: Sequence[Tensor]) -> None:
        self._encoder = encoder
        self._kv = list(kv)

    def __len__(self) -> int:
        return len(self._kv)

    def neutral_token(self) -> Tensor:
        """The encoder's `neutral_token`."""
        return self._encoder.neutral_token()

    def embed(self, token: Tensor) -> Tensor:
        """The last layer's hidden state at the learnable token behind each assignment.

        Differentiable in `token`: the method's only trainable input to the model.

        Args:
            token: (d_model,) float32 value of the learnable token.

        Returns:
            (n, d_model) float32 on the CPU.
        """
        chunks = range(0, len(self._kv), _TOKENS_AT_ONCE)
        return torch.cat([self._embed(self._kv[i : i + _TOKENS_AT_ONCE], token) for i in chunks])

    def _embed(self, kv: list[Tensor], token: Tensor) -> Tensor:
        encoder = self._encoder
        passage = encoder._passage_kv
        t0, n = passage.shape[-2], len(kv)
        lengths = torch.tensor([of_one.shape[-2] for of_one in kv])
        owner = torch.repeat_interleave(torch.arange(n), lengths)
        own_lines = owner[None, :] == torch.arange(n)[:, None]
        passage_seen = torch.ones(n, t0, dtype=torch.bool)
        mask = torch.cat([passage_seen, own_lines, torch.eye(n, dtype=torch.bool)], dim=1)
        inputs = token.to(passage.device, passage.dtype).expand(n, -1)
        positions = (lengths + t0).to(passage.device)
        past = torch.cat([passage, *kv], dim=-2)
        states, _ = encoder._forward(inputs, mask, positions, past)
        return states.float().cpu()


def _keys_and_values(cache: Any) -> Tensor:
    """(L, 2, h, t, head width) of a cache that holds one sequence."""
    return torch.stack([torch.stack([layer.keys[0], layer.values[0]]) for layer in cache.layers])


def _common_beginning(a: Sequence[int], b: Sequence[int]) -> int:
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
