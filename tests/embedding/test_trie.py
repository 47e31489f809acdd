from __future__ import annotations

import numpy as np
import pytest

from optuna_llmbo.embedding.trie import Chunk
from optuna_llmbo.embedding.trie import chunks
from optuna_llmbo.embedding.trie import common_beginning
from optuna_llmbo.embedding.trie import continuations
from optuna_llmbo.embedding.trie import lay_out
from optuna_llmbo.embedding.trie import path_to
from optuna_llmbo.embedding.trie import TokenIds
from optuna_llmbo.embedding.trie import with_ancestors


def random_sequences(n: int, seed: int = 0) -> list[TokenIds]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, size=n)
    return sorted({tuple(rng.integers(0, 3, size=length).tolist()) for length in lengths})


def tokens_of(chunk: Chunk, before: list[TokenIds]) -> list[TokenIds]:
    """The whole path of each node of a chunk, given those of the chunk before."""
    paths = [before[node] for node in chunk.carried]
    for parent, token_id in zip(chunk.parents[len(paths) :], chunk.token_ids, strict=True):
        paths.append(((*paths[parent],) if parent >= 0 else ()) + (token_id,))
    return paths


def test_beginnings_are_shared() -> None:
    (chunk,) = chunks([(1,), (1, 2, 3), (1, 2, 4), (5,)], limit=100)
    assert chunk.token_ids == [1, 2, 3, 4, 5]
    assert chunk.parents == [-1, 0, 1, 1, -1]
    assert chunk.depths == [0, 1, 2, 2, 0]
    assert chunk.ends == [0, 2, 3, 4]
    assert chunk.carried == []


@pytest.mark.parametrize("limit", [1, 2, 5, 17, 1000])
def test_each_node_is_computed_once_however_the_trie_is_cut(limit: int) -> None:
    sequences = random_sequences(60)
    beginnings = {s[:length] for s in sequences for length in range(1, len(s) + 1)}
    computed: list[TokenIds] = []
    ended: list[TokenIds] = []
    paths: list[TokenIds] = []
    for chunk in chunks(sequences, limit):
        paths = tokens_of(chunk, paths)
        assert [len(path) - 1 for path in paths] == chunk.depths
        assert len(chunk.token_ids) <= limit or len(chunk.sequences) == 1
        computed += paths[len(chunk.carried) :]
        ended += [paths[end] for end in chunk.ends]
        assert [paths[end] for end in chunk.ends] == chunk.sequences
    assert len(computed) == len(set(computed))
    assert set(computed) == beginnings
    assert ended == sequences


@pytest.mark.parametrize("block", [1, 3, 8, 64])
@pytest.mark.parametrize("t0", [0, 4])
def test_each_position_sees_the_passage_its_ancestors_and_itself(t0: int, block: int) -> None:
    *_, chunk = chunks(random_sequences(40), limit=30)
    assert chunk.carried
    past = len(chunk.carried)
    layout = lay_out(t0, chunk.parents, chunk.depths, past=past, block=block)
    k = layout.nodes.shape[1]
    for i in range(len(chunk.token_ids)):
        which, row = divmod(i, block)
        visible = np.flatnonzero(layout.visible[which, row])
        own = past + which * block
        seen = [
            *(layout.nodes[which, column - t0] for column in visible if t0 <= column < t0 + k),
            *(own + column - t0 - k for column in visible if column >= t0 + k),
        ]
        assert [column for column in visible if column < t0] == list(range(t0))
        assert sorted(seen) == with_ancestors([past + i], chunk.parents)
        depths = [chunk.depths[node] for node in sorted(seen)]
        assert layout.key_positions[which, visible].tolist() == [
            *range(t0),
            *(t0 + d for d in depths),
        ]
        assert layout.query_positions[which, row] == t0 + chunk.depths[past + i]


def test_padding_is_seen_by_itself_only() -> None:
    layout = lay_out(2, [-1, 0, -1], [0, 1, 0], past=0, block=2)
    assert layout.visible.shape == (2, 2, 2 + 0 + 2)
    assert layout.visible[1].tolist() == [[True, True, True, False], [False, False, False, True]]


def test_common_beginning() -> None:
    assert common_beginning((1, 2, 3), (1, 2, 4, 5)) == 2
    assert common_beginning((1, 2), (1, 2, 4)) == 2
    assert common_beginning((), (1,)) == 0


LONG = tuple(range(100, 200)), tuple(range(200, 300))


def test_sequences_go_on_where_known_ones_begin_like_them() -> None:
    known = sorted((*long, i) for long in LONG for i in range(3))
    missing = sorted([(*LONG[0], 7), (*LONG[0], 8, 9), LONG[1], (*LONG[1][:90], 5), (1, 2), (3,)])
    groups = continuations(missing, known, least=20)
    assert [group.sequences for group in groups] == [missing[:2], missing[2:4], missing[4:]]
    assert [group.shared for group in groups] == [0, 100, 90]
    for group in groups:
        assert group.shared == 0 or group.known in known
        beginning = group.known[: group.shared]
        assert all(s[: group.shared] == beginning != s for s in group.sequences)


@pytest.mark.parametrize("seed", range(5))
def test_groups_hold_each_sequence_once_and_what_they_share(seed: int) -> None:
    every = random_sequences(80, seed)
    known, missing = every[::3], [s for i, s in enumerate(every) if i % 3]
    for least in (1, 2, 4):
        groups = continuations(missing, known, least)
        assert [s for group in groups for s in group.sequences] == missing
        for group in groups:
            assert group.shared == 0 or group.shared >= least
            for s in group.sequences:
                assert s[: group.shared] == group.known[: group.shared]
                assert len(s) > group.shared
    assert continuations([], known, 1) == []


def test_a_chunk_goes_on_from_a_path() -> None:
    (first,) = chunks([(1, 2, 3), (1, 2, 4)], limit=100)
    path = path_to(first.ends[1], first.parents)
    assert path == [0, 1, 3]
    sequences = [(1, 2, 4, 5), (1, 2, 4, 6, 7)]
    paths = tokens_of(first, [])
    for chunk, carried in zip(chunks(sequences, 1, path), (path, [0, 1, 2]), strict=True):
        assert chunk.carried == carried
        paths = tokens_of(chunk, paths)
        assert [len(p) - 1 for p in paths] == chunk.depths
        assert [paths[end] for end in chunk.ends] == chunk.sequences
        assert len(chunk.token_ids) == len(chunk.sequences[0]) - 3
