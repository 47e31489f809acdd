"""How many examples are in memory at once: as many as fit."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
from dataclasses import dataclass
import gc
from typing import TypeVar

import torch


T = TypeVar("T")


@dataclass
class MicroBatch:
    """The most examples of a forward pass; halved for good when they do not fit.

    It is found once: the runs of an objective share one. Results depend on it by rounding only,
    and by which inputs the dropout happens to drop.
    """

    size: int
    """At least 1."""

    def fit(self, work: Callable[[int], T]) -> T:
        """Do something with micro-batches of at most `size`, and again with smaller ones as long
        as memory runs out.

        Args:
            work: a function of the size, which can begin anew.

        Raises:
            The allocator's error if one example is too much.
        """
        while True:
            try:
                return work(self.size)
            except (RuntimeError, MemoryError) as error:
                if self.size == 1 or not is_out_of_memory(error):
                    raise
            # Not inside the block above: the error's traceback holds the tensors.
            self.size = (self.size + 1) // 2
            release()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is an allocator's, on a GPU or on the CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def release() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        with contextlib.suppress(RuntimeError):  # a device that has failed altogether
            torch.cuda.empty_cache()
