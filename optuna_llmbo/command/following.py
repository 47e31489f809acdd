"""Files that grow while they are read."""

from __future__ import annotations

import os
from pathlib import Path
import re
from typing import BinaryIO


_PIECE = 1 << 20
_REMEMBERED = 256
_ENDS = re.compile(rb"[\r\n]+")


class Following:
    """The whole lines of a file, as they are written.

    A file that is replaced, cut, or written anew is read from its beginning again; a line whose
    end is still missing waits for it. Carriage returns end lines too, as progress bars write
    them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()

    def _forget(self) -> None:
        self._inode: int | None = None
        self._offset = 0
        self._rest = b""
        self._last = b""

    def read(self, *, is_final: bool) -> tuple[list[str], bool]:
        """What has been written since the last time.

        Args:
            is_final: whether nothing more will be written, so that a last line without an end is a
                line.

        Returns:
            The new lines, and whether they are read from the beginning again. A file that is not
            there has none.
        """
        try:
            with self.path.open("rb") as file:
                return self._new(file, is_final=is_final)
        except OSError:  # not there yet, or in the middle of being replaced
            return [], False

    def _new(self, file: BinaryIO, *, is_final: bool) -> tuple[list[str], bool]:
        stat = os.fstat(file.fileno())
        again = self._inode is not None and not self._is_same(file, stat)
        if again:
            self._forget()
        self._inode = stat.st_ino
        file.seek(self._offset)
        pieces = []
        while piece := file.read(_PIECE):
            pieces.append(piece)
        new = b"".join(pieces)
        self._offset += len(new)
        self._last = (self._last + new)[-_REMEMBERED:]
        *lines, self._rest = _ENDS.split(self._rest + new)
        if is_final:
            lines, self._rest = [*lines, self._rest], b""
        return [line.decode(errors="replace") for line in lines if line.strip()], again

    def _is_same(self, file: BinaryIO, stat: os.stat_result) -> bool:
        """Whether what was read before is still there."""
        if stat.st_ino != self._inode or stat.st_size < self._offset:
            return False
        file.seek(self._offset - len(self._last))
        return bool(file.read(len(self._last)) == self._last)
