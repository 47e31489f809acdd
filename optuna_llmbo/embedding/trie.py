"""Cut a trie of token sequences into chunks, and work out what attends to what in one pass.

Pure structure: no model, no tensors. One forward pass computes a run of trie nodes, its *own*
positions. They attend to the *passage*, which precedes all sequences, to *past* nodes that earlier
passes computed, and to each other. Past and own nodes are numbered together, past first, and a
node's parent always has a lower number; -1 stands for the end of the passage.
"""

from __future__ import annotations

from bisect import bisect
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
    """(c,) nodes of the previous chunk that are this one's past, as numbered there."""
    sequences: list[TokenIds] = field(default_factory=list)
    """(n,) sequences that end in this chunk."""
    token_ids: list[int] = field(default_factory=list)
    """(t,) token ids of the own nodes."""
    parents: list[int] = field(default_factory=list)
    """(c + t,) parent of each node."""
    depths: list[int] = field(default_factory=list)
    """(c + t,) distance to the passage, 0 for nodes directly after it."""
    ends: list[int] = field(default_factory=list)
    """(n,) last node of each sequence."""


def chunks(sequences: Sequence[TokenIds], limit: int, path: Sequence[int] = ()) -> Iterator[Chunk]:
    """Merge the common prefixes of sequences and cut the trie into chunks.

    A chunk's past is the prefix that its first sequence shares with the one before it, so every
    node of the trie is an own node of exactly one chunk.

    Args:
        sequences: sorted and distinct, none empty.
        limit: own nodes per chunk; a chunk of one sequence may have more.
        path: nodes of an earlier chunk that hold what all the sequences begin with, and which no
            sequence ends with; they are the past of the first chunk.
    """
    previous: TokenIds = sequences[0][: len(path)] if path else ()
    chunk = _after(path)
    path = list(range(len(path)))  # the nodes of `previous`
    for sequence in sequences:
        shared = common_beginning(previous, sequence)
        del path[shared:]
        if chunk.sequences and len(chunk.token_ids) + len(sequence) - shared > limit:
            yield chunk
            chunk = _after(path)
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


def _after(path: Sequence[int]) -> Chunk:
    """An empty chunk with a path as its past."""
    n = len(path)
    return Chunk(carried=list(path), parents=list(range(-1, n - 1)), depths=list(range(n)))


def path_to(node: int, parents: Sequence[int]) -> list[int]:
    """The nodes from the root to a node."""
    path = []
    while node >= 0:
        path.append(node)
        node = parents[node]
    return path[::-1]


@dataclass
class Continuation:
    """Sequences that go on from the beginning of a sequence that is known."""

    known: TokenIds
    """The known sequence; empty if they begin like none."""
    shared: int
    """How many leading tokens all of them share with it."""
    sequences: list[TokenIds]


def continuations(
    missing: Sequence[TokenIds], known: Sequence[TokenIds], least: int
) -> list[Continuation]:
    """Group sequences by the known ones that they begin like.

    Args:
        missing: sorted, none of them known.
        known: sorted.
        least: leading tokens that it takes; with fewer they are read from the start.
    """
    groups: list[Continuation] = []
    for sequence in missing:
        place = bisect(known, sequence)
        shared = 0
        best: TokenIds = ()
        for neighbour in known[max(0, place - 1) : place + 1]:
            n = min(common_beginning(neighbour, sequence), len(sequence) - 1)
            if n > shared:
                shared, best = n, neighbour
        if shared < least:
            shared, best = 0, ()
        last = groups[-1] if groups else None
        if last is not None:
            both = min(last.shared, common_beginning(last.known, sequence), len(sequence) - 1)
            # A group goes on as long as little is read again for it.
            if both >= max(last.shared, shared) - least:
                last.shared = both if both >= least else 0
                last.sequences.append(sequence)
                continue
        groups.append(Continuation(best, shared, [sequence]))
    return groups


def common_beginning(a: TokenIds, b: TokenIds) -> int:
    """Count the leading tokens that are the same."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def with_ancestors(nodes: Sequence[int], parents: Sequence[int]) -> list[int]:
    """Return the nodes and all their ancestors, sorted, without -1."""
    found: set[int] = set()
    for node in nodes:
        while node >= 0 and node not in found:
            found.add(node)
            node = parents[node]
    return sorted(found)


@dataclass(frozen=True)
class Layout:
    """What the own positions of a pass attend to, in blocks of neighbours.

    A block attends to the passage of t0 tokens, to k nodes outside the block, and to itself.
    Padding, of a block or of its k nodes, is visible only to itself.
    """

    nodes: np.ndarray
    """(blocks, k) int64, numbers of the nodes outside the block."""
    visible: np.ndarray
    """(blocks, block, t0 + k + block) bool."""
    query_positions: np.ndarray
    """(blocks, block) int64, position of each query in its own prompt."""
    key_positions: np.ndarray
    """(blocks, t0 + k + block) int64, position of each key in its own prompt."""


def lay_out(
    t0: int, parents: Sequence[int], depths: Sequence[int], past: int, block: int
) -> Layout:
    """Cut the own positions of a pass into blocks and find what each attends to.

    Args:
        t0: length of the passage.
        parents: (past + own,) parent of each node.
        depths: (past + own,) depth of each node.
        past: number of past nodes.
        block: own positions per block.
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
    """Return the ancestors of a run of nodes that lie outside the run."""
    entries = [parents[node] for node in nodes if parents[node] < nodes.start]
    return with_ancestors(entries, parents)


def _ancestor_mask(nodes: Sequence[int], parents: Sequence[int]) -> np.ndarray:
    """Return (n, n) bool, row i True at node i and its ancestors; `nodes` is sorted and closed."""
    place = {node: i for i, node in enumerate(nodes)}
    mask = np.eye(len(nodes), dtype=bool)
    for i, node in enumerate(nodes):
        if parents[node] >= 0:
            mask[i] |= mask[place[parents[node]]]
    return mask
