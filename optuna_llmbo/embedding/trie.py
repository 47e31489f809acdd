"""Token sequences that share their beginnings, cut into chunks, and who sees whom in one pass.

Pure structure: no model, no tensors. One forward pass computes a run of trie nodes, its *own*
positions. They look at the *passage*, which all sequences stand behind, at *past* nodes that
earlier passes computed, and at each other. Past and own nodes are numbered together, past first,
and a node's parent always has a lower number; -1 stands for the end of the passage.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

import numpy as np


TokenIds = tuple[int, ...]


@dataclass(frozen=True)
class Chunk:
    """A run of trie nodes in depth-first order, small enough for one forward pass."""

    carried: list[int]
    """(c,) the nodes of the chunk before that are this one's past, by their numbers there."""
    sequences: list[TokenIds] = field(default_factory=list)
    """The n sequences that end in this chunk."""
    token_ids: list[int] = field(default_factory=list)
    """(t,) of the own nodes."""
    parents: list[int] = field(default_factory=list)
    """(c + t,)"""
    depths: list[int] = field(default_factory=list)
    """(c + t,) distance to the passage, 0 for what directly follows it."""
    ends: list[int] = field(default_factory=list)
    """(n,) the last node of each sequence."""


def chunks(sequences: Sequence[TokenIds], limit: int) -> Iterator[Chunk]:
    """Merge the common beginnings of sequences and cut the trie into chunks.

    A chunk's past is what its first sequence shares with the last one before it, so every node
    of the trie is an own node of exactly one chunk.

    Args:
        sequences: sorted, no two the same, none empty.
        limit: own nodes a chunk; a chunk of one sequence may have more.
    """
    previous: TokenIds = ()
    path: list[int] = []  # the nodes of `previous`
    chunk = Chunk(carried=[])
    for sequence in sequences:
        shared = common_beginning(previous, sequence)
        del path[shared:]
        if chunk.sequences and len(chunk.token_ids) + len(sequence) - shared > limit:
            yield chunk
            parents, depths = list(range(-1, shared - 1)), list(range(shared))
            chunk = Chunk(carried=path, parents=parents, depths=depths)
            path = list(range(shared))
        for token_id in sequence[shared:]:
            chunk.parents.append(path[-1] if path else -1)
            chunk.depths.append(len(path))
            path.append(len(chunk.parents) - 1)
            chunk.token_ids.append(token_id)
        chunk.sequences.append(sequence)
        chunk.ends.append(path[-1])
        previous = sequence
    if chunk.sequences:
        yield chunk


def common_beginning(a: TokenIds, b: TokenIds) -> int:
    """How many leading tokens are the same."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def with_ancestors(nodes: Sequence[int], parents: Sequence[int]) -> list[int]:
    """Some nodes and all their ancestors, sorted; -1 is left out."""
    found: set[int] = set()
    for node in nodes:
        while node >= 0 and node not in found:
            found.add(node)
            node = parents[node]
    return sorted(found)


@dataclass(frozen=True)
class Layout:
    """What the own positions of a pass look at, a block of neighbours at a time.

    A block looks at the passage of t0 tokens, at k nodes outside of it, and at itself. What pads a
    block or its k nodes is visible to nobody but itself.
    """

    nodes: np.ndarray
    """(blocks, k) int64, numbers of the nodes outside."""
    visible: np.ndarray
    """(blocks, block, t0 + k + block) bool."""
    query_positions: np.ndarray
    """(blocks, block) int64, where each own position stands in its own prompt."""
    key_positions: np.ndarray
    """(blocks, t0 + k + block) int64."""


def lay_out(
    t0: int, parents: Sequence[int], depths: Sequence[int], past: int, block: int
) -> Layout:
    """Cut the own positions of a pass into blocks and find what each looks at.

    Args:
        t0: length of the passage.
        parents: (past + own,)
        depths: (past + own,)
        past: how many nodes are past.
        block: own positions a block.
    """
    starts = range(past, len(parents), block)
    inside = [range(start, min(start + block, len(parents))) for start in starts]
    outside = [_outside(own, parents) for own in inside]
    k = max(len(others) for others in outside)
    nodes = np.zeros((len(inside), k), dtype=np.int64)
    key_positions = np.zeros((len(inside), t0 + k + block), dtype=np.int64)
    key_positions[:, :t0] = np.arange(t0)
    visible = np.zeros((len(inside), block, t0 + k + block), dtype=bool)
    visible[:, range(block), range(t0 + k, t0 + k + block)] = True
    for i, (others, own) in enumerate(zip(outside, inside, strict=True)):
        columns = [*range(t0, t0 + len(others)), *range(t0 + k, t0 + k + len(own))]
        nodes[i, : len(others)] = others
        key_positions[i, columns] = [t0 + depths[node] for node in (*others, *own)]
        visible[i, : len(own), :t0] = True
        seen = _ancestor_mask([*others, *own], parents)
        visible[i, : len(own), columns] = seen[len(others) :].T
    return Layout(nodes, visible, key_positions[:, t0 + k :], key_positions)


def _outside(nodes: range, parents: Sequence[int]) -> list[int]:
    """The ancestors of a run of nodes that are not in the run."""
    entries = [parents[node] for node in nodes if parents[node] < nodes.start]
    return with_ancestors(entries, parents)


def _ancestor_mask(nodes: Sequence[int], parents: Sequence[int]) -> np.ndarray:
    """(n, n) bool, row i True at node i and at its ancestors; nodes hold these, and are sorted."""
    place = {node: i for i, node in enumerate(nodes)}
    mask = np.eye(len(nodes), dtype=bool)
    for i, node in enumerate(nodes):
        if parents[node] >= 0:
            mask[i] |= mask[place[parents[node]]]
    return mask
