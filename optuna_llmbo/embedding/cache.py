"""Cache embeddings in memory, up to a size, and on disk, for later processes.

A cache belongs to one *kind* of embedding: everything that determines an embedding except the
assignment. On disk, a kind is a folder of shards: safetensors files, each written whole under a
unique name and never changed, so any number of processes may read and write at once. A shard that
cannot be read is removed and its embeddings are computed again; a failed write is logged as a
warning, and nothing more is written.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
import hashlib
import json
import logging
import os
from pathlib import Path
import shutil
import tempfile
from typing import Any
import zlib

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from optuna_llmbo.embedding.language_model import cache_folder
from optuna_llmbo.embedding.trie import TokenIds
from optuna_llmbo.errors import warn_once


DISK_BYTES = 2 * 2**30
"""Size on disk above which the least recently used kinds of embeddings are removed."""

_MEMORY_BYTES = 128 * 2**20
_SMALL_SHARD = 1024
_MOST_SMALL_SHARDS = 64
_KEY_BYTES = 16

_logger = logging.getLogger(f"optuna.{__name__}")


def embeddings_folder() -> Path:
    """Return the folder that holds the embeddings of every kind."""
    return cache_folder() / "embeddings"


class EmbeddingCache:
    """Cache of the embeddings of one kind.

    Args:
        kind: everything that determines an embedding except the assignment; JSON-serializable.
        width: width of the embeddings.
    """

    def __init__(self, kind: Mapping[str, Any], width: int) -> None:
        name = hashlib.sha256(json.dumps(kind, sort_keys=True).encode()).hexdigest()[:32]
        self._folder = embeddings_folder() / name
        self._width = width
        self._memory: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._shard_of: dict[bytes, str] = {}
        self._rows_in: dict[str, int] = {}
        self._writes = True
        _make_room(keep=self._folder)

    def get(self, sequences: Sequence[TokenIds]) -> dict[TokenIds, np.ndarray]:
        """Return the cached embeddings, each (width,) float32; others are left out."""
        keys = {_key(sequence): sequence for sequence in sequences}
        if not keys.keys() <= self._memory.keys():
            self._look_for_new_shards()
        found = {}
        for key in keys.keys() & self._memory.keys():
            self._memory.move_to_end(key)
            found[keys[key]] = self._memory[key]
        elsewhere = (keys.keys() & self._shard_of.keys()) - self._memory.keys()
        for shard in {self._shard_of[key] for key in elsewhere}:
            rows = self._load(shard)
            found |= {keys[key]: rows[key] for key in elsewhere & rows.keys()}
        return found

    def put(self, sequences: Sequence[TokenIds], embeddings: np.ndarray) -> None:
        """Add the embeddings of n sequences.

        Args:
            sequences: n distinct token sequences.
            embeddings: (n, width) float32.
        """
        rows = dict(zip(map(_key, sequences), embeddings, strict=True))
        self._remember(rows)
        if self._writes and rows:
            self._write(rows)

    def _look_for_new_shards(self) -> None:
        new = [name for name in self._shards() if name not in self._rows_in]
        for name in new:
            rows = self._load(name)
            self._shard_of.update(dict.fromkeys(rows, name))
            self._rows_in[name] = len(rows)
            self._remember(rows)
        small = [name for name, n in self._rows_in.items() if 0 < n < _SMALL_SHARD]
        if new and self._writes and len(small) > _MOST_SMALL_SHARDS:
            self._merge(small)

    def _shards(self) -> list[str]:
        try:
            return sorted(path.name for path in self._folder.glob("*.safetensors"))
        except OSError:  # no permission to read it
            return []

    def _load(self, name: str) -> dict[bytes, np.ndarray]:
        """Load a shard's rows by key; empty if it is gone, or damaged and therefore removed."""
        path = self._folder / name
        try:
            # Read, not memory-mapped: a mapped file that is truncated meanwhile kills the process.
            tensors = load_safetensors(path.read_bytes())
            keys, rows = tensors["keys"], tensors["embeddings"]
            intact = int(tensors["checksum"][0]) == _checksum(keys, rows)
            if intact and rows.shape == (len(keys), self._width):
                return {key.tobytes(): row for key, row in zip(keys, rows, strict=True)}
        except FileNotFoundError:  # merged into another shard, or cleared
            return {}
        except (OSError, SafetensorError, KeyError, IndexError, TypeError, ValueError):
            pass
        _logger.warning(f"The embeddings in {path} are damaged and will be computed again.")
        _remove(path)
        return {}

    def _remember(self, rows: Mapping[bytes, np.ndarray]) -> None:
        for key, row in rows.items():
            self._memory[key] = row.astype(np.float32)  # a copy: a view would keep every row alive
            self._memory.move_to_end(key)
        while len(self._memory) * (4 * self._width + _KEY_BYTES) > _MEMORY_BYTES:
            self._memory.popitem(last=False)

    def _write(self, rows: Mapping[bytes, np.ndarray]) -> bool:
        keys = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, _KEY_BYTES)
        embeddings = np.stack(list(rows.values())).astype(np.float32)
        checksum = np.array([_checksum(keys, embeddings)], dtype=np.uint32)
        shard: dict[str, np.ndarray] = {
            "keys": keys,
            "embeddings": embeddings,
            "checksum": checksum,
        }
        try:
            name = _write_whole(self._folder, save_safetensors(shard))
        except OSError as error:
            self._writes = False
            warn_once(f"Embeddings cannot be saved in {self._folder.parent}: {error.strerror}.")
            return False
        self._shard_of.update(dict.fromkeys(rows, name))
        self._rows_in[name] = len(rows)
        return True

    def _merge(self, names: list[str]) -> None:
        """Merge small shards into one; nothing is lost if several processes do so at once."""
        shards = {name: self._load(name) for name in names}
        rows = {key: row for shard in shards.values() for key, row in shard.items()}
        if rows and not self._write(rows):
            return
        for name in names:  # shards without rows are gone: another process merged them
            _remove(self._folder / name)
            del self._rows_in[name]


def _key(sequence: TokenIds) -> bytes:
    return hashlib.blake2b(np.array(sequence).tobytes(), digest_size=_KEY_BYTES).digest()


def _checksum(keys: np.ndarray, rows: np.ndarray) -> int:
    return zlib.crc32(rows.tobytes(), zlib.crc32(keys.tobytes()))


def _write_whole(folder: Path, content: bytes) -> str:
    """Write a new shard, which gets its final name only once it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=folder, prefix="making-")
    path = Path(scratch)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        shard = path.with_name(path.name.removeprefix("making-") + ".safetensors")
        return path.rename(shard).name
    except OSError:
        _remove(path)
        raise


def _make_room(keep: Path) -> None:
    """Remove the least recently used kinds until the rest fit in `DISK_BYTES`."""
    kinds = [(_last_used(path), _size(path), path) for path in _children(embeddings_folder())]
    total = sum(size for _, size, _ in kinds)
    for _, size, path in sorted(kinds):
        if total > DISK_BYTES and path != keep:
            shutil.rmtree(path, ignore_errors=True)
            total -= size
    with suppress(OSError):
        os.utime(keep)


def _children(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.iterdir()
    except OSError:
        return


def _size(folder: Path) -> int:
    return sum(stat.st_size for path in _children(folder) if (stat := _stat(path)))


def _last_used(folder: Path) -> float:
    stat = _stat(folder)
    return stat.st_mtime if stat else 0.0


def _stat(path: Path) -> os.stat_result | None:
    with suppress(OSError):  # another process may have just removed it
        return path.stat()
    return None


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
