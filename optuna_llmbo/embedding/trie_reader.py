"""Read token sequences after one passage through a trie: each distinct prefix is computed once.

Attention in a causal model only looks back. The passage is read once and its keys and values are
kept. The trie of the sequences is laid out as one sequence in which each node attends to the
passage and its own ancestors, and has the position that it has in its own prompt. The learnable
token is one more position after each sequence; nothing else depends on it, so a new value of the
token, and each step of its training, costs one position per sequence.

Shapes: L layers, h key-value heads, w head width, t0 positions of the passage, d_model width of
the model.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.embedding.trie import Chunk
from optuna_llmbo.embedding.trie import chunks
from optuna_llmbo.embedding.trie import continuations
from optuna_llmbo.embedding.trie import lay_out
from optuna_llmbo.embedding.trie import Layout
from optuna_llmbo.embedding.trie import path_to
from optuna_llmbo.embedding.trie import TokenIds
from optuna_llmbo.embedding.trie import with_ancestors
from optuna_llmbo.embedding.trie_attention import register_trie_attention
from optuna_llmbo.embedding.trie_attention import TriePass
from optuna_llmbo.embedding.truncated import Body
from optuna_llmbo.embedding.truncated import embedding_width
from optuna_llmbo.embedding.truncated import Pooling


_CHUNK = 1024
"""Largest number of positions per pass: enough for matrix products to run at full speed."""
_BLOCK = 128
"""Neighbours that share their keys: more waste work on masked keys, fewer on gathering them."""
_LEAVES = 128
"""Ends of sequences gathered, chunk by chunk, before one pass of the token."""
_LEAF_BLOCK = 32
_LONG = 128
"""Nodes for each sequence beyond which few ends share a block: most of its keys are others'."""
_LEAST_KNOWN = 64
"""Leading tokens that a remembered sequence must share for others to be read from there on."""
_SHARES = 8
"""Shares of the memory bound: one for the chunk being read, one for the ends gathered from a
chunk, the rest for what is remembered."""


class TrieReader:
    """Embed token sequences after one passage with a causal model, exactly.

    Chunks that were read are remembered up to `memory_bytes`; the least recently used are dropped
    first and read again when they are needed.

    Args:
        llm: the frozen model.
        passage: token ids before every sequence.
        pooling: how states become an embedding.
        layer: see `Body`.
        memory_bytes: bound on the keys and values of the sequences, remembered and in use
            together; the passage's come on top.
    """

    def __init__(
        self,
        llm: LanguageModel,
        passage: TokenIds,
        pooling: Pooling,
        layer: int | None,
        memory_bytes: int,
    ) -> None:
        self._body = Body(llm, layer, attention=register_trie_attention())
        self._pooling = pooling
        self._memory_bytes = memory_bytes
        self._memory: OrderedDict[int, _ReadChunk] = OrderedDict()
        self._where: dict[TokenIds, int] = {}
        self._n_read = 0
        self.n_positions = 0
        """Positions computed so far, passage and tokens included; for benchmarks."""
        start, *_ = chunks([passage or (0,)], limit=_CHUNK)
        self._passage: Tensor | None = None
        one_way = self._read(start, None)
        if passage:
            self._passage = one_way.kv
        per_position = one_way.nbytes // len(start.token_ids)
        self._chunk = max(1, min(_CHUNK, memory_bytes // (_SHARES * per_position)))

    def embed(self, sequences: Sequence[TokenIds], token: Tensor) -> Tensor:
        """Embed n sequences for one value of the token.

        Args:
            sequences: n distinct sequences, none empty.
            token: (d_model,) float32; gradients reach it.

        Returns:
            (n, width) float32 on the CPU.
        """
        return self._embed(self._leaves(sequences), len(sequences), token)

    def prepare(self, sequences: Sequence[TokenIds]) -> Callable[[Tensor], Tensor]:
        """Return `embed` as a function of the token, the shared part gathered once if it fits."""
        kept: list[_Leaves] = []
        for leaves in self._leaves(sequences):
            kept.append(leaves)
            if sum(k.nbytes for k in kept) > 2 * self._memory_bytes // _SHARES:
                return lambda token: self.embed(sequences, token)
        return lambda token: self._embed(iter(kept), len(sequences), token)

    def _embed(self, groups: Iterator[_Leaves], n: int, token: Tensor) -> Tensor:
        rows = torch.empty(n, embedding_width(self._body.d_model, self._pooling))
        for leaves in groups:
            rows[leaves.indices] = self._pooled(leaves, token)
        return rows

    def _pooled(self, leaves: _Leaves, token: Tensor) -> Tensor:
        if self._pooling == "mean":
            assert leaves.means is not None
            return leaves.means
        n = len(leaves.indices)
        inputs = token.to(self._body.device, self._body.dtype).expand(1, n, -1)
        last = self._run(inputs, leaves.layout, leaves.past, keep=False)[0].float().cpu()
        return last if leaves.means is None else torch.cat([last, leaves.means], dim=1)

    def _leaves(self, sequences: Sequence[TokenIds]) -> Iterator[_Leaves]:
        """Yield the sequences' ends in groups: remembered ones first, others as they are read."""
        index = {sequence: i for i, sequence in enumerate(sequences)}
        known = sorted(
            (self._where[s], self._memory[self._where[s]].end_of[s], i)
            for s, i in index.items()
            if s in self._where
        )
        missing = sorted(s for s in index if s not in self._where)
        group: list[tuple[_ReadChunk, int, int]] = []
        for key, of_chunk in groupby(known, key=lambda place: place[0]):
            self._memory.move_to_end(key)
            group += [(self._memory[key], end, i) for _, end, i in of_chunk]
            if len(group) >= _LEAVES:
                yield self._gather(group)
                group = []
        if group:
            yield self._gather(group)
        for continued in self._continued(missing):
            for before in continued:
                self._remember(before)
                yield self._gather([(before, end, index[s]) for s, end in before.end_of.items()])

    def _continued(self, missing: Sequence[TokenIds]) -> Iterator[Iterator[_ReadChunk]]:
        """Read sequences in groups, each from where a remembered one begins otherwise."""
        for group in continuations(missing, sorted(self._where), _LEAST_KNOWN):
            if not group.shared or group.known not in self._where:
                yield self._read_all(chunks(group.sequences, self._chunk), None)
                continue
            before = self._memory[self._where[group.known]]
            self._memory.move_to_end(before.key)
            path = path_to(before.end_of[group.known], before.parents)[: group.shared]
            yield self._read_all(chunks(group.sequences, self._chunk, path), before)

    def _read_all(self, some: Iterator[Chunk], before: _ReadChunk | None) -> Iterator[_ReadChunk]:
        for chunk in some:
            before = self._read(chunk, before)
            yield before

    def _gather(self, ends: list[tuple[_ReadChunk, int, int]]) -> _Leaves:
        """Lay out the learnable token after each of these ends, which are grouped by chunk."""
        parents: list[int] = []
        depths: list[int] = []
        leaves: list[tuple[int, int]] = []
        past, means = [], []
        for _, of_one in groupby(ends, key=lambda end: id(end[0])):
            group = list(of_one)
            read = group[0][0]
            nodes = with_ancestors([end for _, end, _ in group], read.parents)
            place = {-1: -1} | {node: len(parents) + i for i, node in enumerate(nodes)}
            parents += [place[read.parents[node]] for node in nodes]
            depths += [read.depths[node] for node in nodes]
            leaves += [(place[end], read.depths[end] + 1) for _, end, _ in group]
            if self._pooling != "mean":
                past.append(_select(read.kv, nodes))
            means += [read.mean_of(end) for _, end, _ in group if self._pooling != "last"]
        layout = lay_out(
            self._t0,
            [*parents, *(parent for parent, _ in leaves)],
            [*depths, *(depth for _, depth in leaves)],
            past=len(parents),
            block=min(_LEAF_BLOCK if len(parents) < _LONG * len(leaves) else 4, len(leaves)),
        )
        return _Leaves(
            indices=[i for _, _, i in ends],
            past=past[0] if len(past) == 1 else torch.cat(past, dim=-2) if past else None,
            layout=layout,
            means=torch.stack(means).cpu() if means else None,
        )

    def _read(self, chunk: Chunk, before: _ReadChunk | None) -> _ReadChunk:
        """Compute a chunk's own nodes; `before` is the previous chunk, None for the first."""
        carried = sums = None
        if before is not None and chunk.carried:
            carried = _select(before.kv, chunk.carried)
            sums = before.sums[chunk.carried] if before.sums is not None else None
        past = len(chunk.carried)
        layout = lay_out(self._t0, chunk.parents, chunk.depths, past=past, block=_BLOCK)
        with torch.no_grad():
            inputs = self._body.embed_tokens([chunk.token_ids])
            states, own = self._run(inputs, layout, carried, keep=True)
            kv = own if carried is None else torch.cat([carried, own], dim=-2)
            if self._pooling != "last":
                sums = _sums(states.float(), sums, chunk)
        self._n_read += 1
        end_of = dict(zip(chunk.sequences, chunk.ends, strict=True))
        return _ReadChunk(self._n_read, end_of, chunk.parents, chunk.depths, kv, sums)

    def _run(
        self, inputs: Tensor, layout: Layout, past: Tensor | None, keep: bool
    ) -> tuple[Tensor, Tensor]:
        """Run one forward pass; return the own positions' states (t, d_model), keys, values."""
        n = inputs.shape[1]
        self.n_positions += n
        device = self._body.device
        trie_pass = TriePass(layout, self._passage, past, keep=keep, device=device)
        positions = torch.from_numpy(layout.query_positions.ravel()[:n]).to(device)
        states = self._body(inputs, position_ids=positions[None], trie_pass=trie_pass)[0]
        return states, trie_pass.keys_and_values()

    def _remember(self, read: _ReadChunk) -> None:
        if self._pooling == "mean":
            return  # independent of the token, so never needed again
        self._memory[read.key] = read
        self._where.update(dict.fromkeys(read.end_of, read.key))
        room = self._memory_bytes * (_SHARES - 2) // _SHARES
        while self.bytes_held > room:
            _, dropped = self._memory.popitem(last=False)
            for sequence in dropped.end_of:
                del self._where[sequence]

    @property
    def bytes_held(self) -> int:
        """Bytes of the keys and values that are remembered."""
        return sum(read.nbytes for read in self._memory.values())

    @property
    def _t0(self) -> int:
        return self._passage.shape[-2] if self._passage is not None else 0


@dataclass(frozen=True)
class _ReadChunk:
    """A chunk that has been read, with c past and t own nodes."""

    key: int
    end_of: dict[TokenIds, int]
    parents: list[int]
    depths: list[int]
    kv: Tensor
    """(L, 2, h, c + t, w) keys and values."""
    sums: Tensor | None
    """(c + t, d_model) float32, sum of the states from the first token to each node."""

    @property
    def nbytes(self) -> int:
        return sum(x.numel() * x.element_size() for x in (self.kv, self.sums) if x is not None)

    def mean_of(self, end: int) -> Tensor:
        assert self.sums is not None
        return self.sums[end] / (self.depths[end] + 1)


@dataclass(frozen=True)
class _Leaves:
    """The learnable token after n sequences, ready to run."""

    indices: list[int]
    """(n,) positions of the sequences in the request."""
    past: Tensor | None
    """(L, 2, h, k, w) keys and values of the nodes that they attend to."""
    layout: Layout
    means: Tensor | None
    """(n, d_model) float32, mean over each sequence's tokens."""

    @property
    def nbytes(self) -> int:
        return sum(x.numel() * x.element_size() for x in (self.past, self.means) if x is not None)


def _select(kv: Tensor, nodes: list[int]) -> Tensor:
    """Select the keys and values of some nodes, without a copy if these are all nodes."""
    if nodes == list(range(kv.shape[-2])):
        return kv
    return kv.index_select(-2, torch.tensor(nodes, device=kv.device))


def _sums(states: Tensor, carried: Tensor | None, chunk: Chunk) -> Tensor:
    """Sum the states along each path, one depth at a time, (c + t, d_model)."""
    c = len(chunk.carried)
    sums = torch.cat([carried, states]) if carried is not None else states
    own = range(c, len(chunk.parents))
    for _, level in groupby(sorted(own, key=chunk.depths.__getitem__), chunk.depths.__getitem__):
        nodes = [node for node in level if chunk.parents[node] >= 0]
        if nodes:
            sums[nodes] += sums[[chunk.parents[node] for node in nodes]]
    return sums
