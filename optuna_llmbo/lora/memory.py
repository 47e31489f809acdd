"""How many examples are in memory at once: as many as fit."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
from dataclasses import dataclass
import gc
from typing import TypeVar

import torch

from optuna_llmbo.lora import distributed


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

        Of several processes that train together all take the smaller one.

        Args:
            work: a function of the size, which can begin anew.

        Raises:
            The allocator's error if one example is too much.
        """
        while True:
            result, lacking = self._tried(work)
            if not distributed.any_of(lacking is not None):
                assert result is not None
                return result[0]
            if self.size == 1:
                raise torch.OutOfMemoryError(lacking or "in another process")
            self.size = (self.size + 1) // 2
            release()

    def _tried(self, work: Callable[[int], T]) -> tuple[tuple[T] | None, str | None]:
        """The result, or what the allocator says; not its error, which holds the tensors."""
        try:
            return (work(self.size),), None
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None, str(error) or "out of memory"


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
