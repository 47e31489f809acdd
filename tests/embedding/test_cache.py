from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from optuna_llmbo.embedding import cache as cache_module
from optuna_llmbo.embedding.cache import EmbeddingCache
from optuna_llmbo.embedding.trie import TokenIds


KIND = {"weights": "abc", "layer": 3}
WIDTH = 5


def sequences(n: int, start: int = 0) -> list[TokenIds]:
    return [(1, i) for i in range(start, start + n)]


def rows(of: list[TokenIds]) -> np.ndarray:
    """What each sequence's embedding is in these tests."""
    return np.array([[s[-1] + column / 10 for column in range(WIDTH)] for s in of], np.float32)


def check(found: dict[TokenIds, np.ndarray], expected: list[TokenIds]) -> None:
    assert sorted(found) == sorted(expected)
    for sequence, row in found.items():
        np.testing.assert_array_equal(row, rows([sequence])[0])


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.safetensors"))


def test_found_again_in_memory_and_by_another_process(embeddings_folder: Path) -> None:
    cache = EmbeddingCache(KIND, WIDTH)
    check(cache.get(sequences(3)), [])
    cache.put(sequences(3), rows(sequences(3)))
    check(cache.get(sequences(5)), sequences(3))
    check(EmbeddingCache(KIND, WIDTH).get(sequences(5)), sequences(3))
    assert len(shards(embeddings_folder)) == 1
    assert not list(embeddings_folder.glob("*/making-*"))


@pytest.mark.parametrize("other", [{"weights": "abd", "layer": 3}, {"weights": "abc", "layer": 2}])
def test_another_kind_is_another_cache(other: dict[str, object]) -> None:
    EmbeddingCache(KIND, WIDTH).put(sequences(3), rows(sequences(3)))
    check(EmbeddingCache(other, WIDTH).get(sequences(3)), [])


def test_what_another_process_has_just_written_is_found() -> None:
    ours, theirs = EmbeddingCache(KIND, WIDTH), EmbeddingCache(KIND, WIDTH)
    check(ours.get(sequences(2)), [])
    theirs.put(sequences(2), rows(sequences(2)))
    check(ours.get(sequences(2)), sequences(2))


def test_memory_is_bounded_and_the_disk_helps_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_MEMORY_BYTES", 4 * (4 * WIDTH + 16))
    cache = EmbeddingCache(KIND, WIDTH)
    for start in range(0, 30, 3):
        cache.put(sequences(3, start), rows(sequences(3, start)))
    assert len(cache._memory) == 4
    check(cache.get(sequences(30)), sequences(30))
    check(EmbeddingCache(KIND, WIDTH).get(sequences(30)), sequences(30))


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_truncated_file_is_removed_and_computed_again(
    embeddings_folder: Path, kept: int, warnings_logged: list[str]
) -> None:
    EmbeddingCache(KIND, WIDTH).put(sequences(9), rows(sequences(9)))
    (shard,) = shards(embeddings_folder)
    shard.write_bytes(shard.read_bytes()[:kept])
    cache = EmbeddingCache(KIND, WIDTH)
    check(cache.get(sequences(9)), [])
    assert not shards(embeddings_folder)
    assert "are damaged and will be computed again" in warnings_logged[0]
    cache.put(sequences(9), rows(sequences(9)))
    check(EmbeddingCache(KIND, WIDTH).get(sequences(9)), sequences(9))


def test_a_flipped_bit_is_noticed(embeddings_folder: Path) -> None:
    EmbeddingCache(KIND, WIDTH).put(sequences(9), rows(sequences(9)))
    (shard,) = shards(embeddings_folder)
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    check(EmbeddingCache(KIND, WIDTH).get(sequences(9)), [])


@pytest.fixture
def disk_only(monkeypatch: pytest.MonkeyPatch) -> EmbeddingCache:
    """A cache of nine embeddings, none of them in memory."""
    monkeypatch.setattr(cache_module, "_MEMORY_BYTES", 0)
    cache = EmbeddingCache(KIND, WIDTH)
    cache.put(sequences(9), rows(sequences(9)))
    return cache


def test_a_shard_truncated_while_it_is_in_use(
    embeddings_folder: Path, disk_only: EmbeddingCache
) -> None:
    (shard,) = shards(embeddings_folder)
    shard.write_bytes(shard.read_bytes()[:50])
    check(disk_only.get(sequences(9)), [])


def test_cleared_while_it_is_in_use(embeddings_folder: Path, disk_only: EmbeddingCache) -> None:
    shutil.rmtree(embeddings_folder)
    check(disk_only.get(sequences(9)), [])
    disk_only.put(sequences(2), rows(sequences(2)))
    check(disk_only.get(sequences(9)), sequences(2))


@pytest.fixture
def many_shards(monkeypatch: pytest.MonkeyPatch) -> EmbeddingCache:
    """A cache of twelve embeddings in six shards, one more than there may be small ones."""
    monkeypatch.setattr(cache_module, "_MOST_SMALL_SHARDS", 5)
    writer = EmbeddingCache(KIND, WIDTH)
    for i in range(6):
        writer.put(sequences(2, 2 * i), rows(sequences(2, 2 * i)))
    return writer


def test_many_small_shards_become_one(
    embeddings_folder: Path, many_shards: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(shards(embeddings_folder)) == 6
    check(EmbeddingCache(KIND, WIDTH).get(sequences(12)), sequences(12))
    assert len(shards(embeddings_folder)) == 1
    monkeypatch.setattr(many_shards, "_memory", type(many_shards._memory)())
    check(many_shards.get(sequences(13)), sequences(12))  # from the new shard


@pytest.mark.usefixtures("many_shards")
def test_small_shards_that_another_process_merges_first(
    embeddings_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = EmbeddingCache(KIND, WIDTH)
    merge = slow._merge

    def too_late(names: list[str]) -> None:
        check(EmbeddingCache(KIND, WIDTH).get(sequences(12)), sequences(12))
        merge(names)

    monkeypatch.setattr(slow, "_merge", too_late)
    check(slow.get(sequences(12)), sequences(12))
    assert len(shards(embeddings_folder)) == 1
    slow.put(sequences(2, 20), rows(sequences(2, 20)))
    check(EmbeddingCache(KIND, WIDTH).get(sequences(12)), sequences(12))


def _write_many(folder: Path, worker: int) -> None:
    cache_module.embeddings_folder = lambda: folder
    cache_module._MOST_SMALL_SHARDS = 3
    for i in range(20):
        cache = EmbeddingCache(KIND, WIDTH)
        some = sequences(4, 2 * i + worker)  # half of them are the other's too
        found = cache.get(some)  # any of them: the other process may write at this very moment
        check(found, list(found))
        cache.put(some, rows(some))


def test_two_processes_write_and_merge_at_once(embeddings_folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_many, args=(embeddings_folder, w)) for w in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    check(EmbeddingCache(KIND, WIDTH).get(sequences(44)), sequences(43))


_FULL_DISK = """
import resource, signal, sys
import numpy as np
from pathlib import Path
import shutil
from optuna_llmbo.embedding import cache
from optuna_llmbo.embedding.cache import EmbeddingCache
cache.embeddings_folder = lambda: Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # a write beyond it fails half-way
cache = EmbeddingCache({"a": 1}, 8)
few, many = [(1, 2)], [(3, i) for i in range(100)]
cache.put(few, np.ones((1, 8), np.float32))
for _ in range(2):
    cache.put(many, np.ones((100, 8), np.float32))
print(len(cache.get(few + many)), len(EmbeddingCache({"a": 1}, 8).get(few + many)))
"""


def test_a_full_disk_costs_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / "full"
    code = [sys.executable, "-c", _FULL_DISK, str(folder)]
    result = subprocess.run(code, capture_output=True, text=True)
    assert result.stdout.split() == ["101", "1"], result.stderr
    assert result.stderr.count("Embeddings cannot be saved") == 1
    assert len(list(folder.glob("*/*"))) == 1  # nothing half-written is left


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(embeddings_folder: Path) -> None:
    embeddings_folder.mkdir()
    embeddings_folder.chmod(0o500)
    cache = EmbeddingCache(KIND, WIDTH)
    cache.put(sequences(2), rows(sequences(2)))
    check(cache.get(sequences(2)), sequences(2))


def test_a_file_in_the_folders_place(embeddings_folder: Path, warnings_logged: list[str]) -> None:
    embeddings_folder.write_text("in the way")
    cache = EmbeddingCache(KIND, WIDTH)
    cache.put(sequences(2), rows(sequences(2)))
    check(cache.get(sequences(3)), sequences(2))
    assert len(warnings_logged) == 1 and "cannot be saved" in warnings_logged[0]


def test_kinds_not_used_for_long_make_room(
    embeddings_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for layer in range(4):
        EmbeddingCache({"layer": layer}, WIDTH).put(sequences(9), rows(sequences(9)))
        folder = max(embeddings_folder.iterdir(), key=lambda path: path.stat().st_mtime)
        os.utime(folder, (time.time() - 1000 + layer,) * 2)
    EmbeddingCache({"layer": 0}, WIDTH)  # used just now
    size = sum(path.stat().st_size for path in shards(embeddings_folder))
    monkeypatch.setattr(cache_module, "DISK_BYTES", size // 2)
    EmbeddingCache({"layer": 0}, WIDTH)
    left = [
        layer for layer in range(4) if EmbeddingCache({"layer": layer}, WIDTH).get(sequences(9))
    ]
    assert left == [0, 3]
