"""The micro-batch: as many examples in memory at once as fit."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
from dataclasses import dataclass
import gc
import re
from typing import TypeVar

import torch

from optuna_llmbo.lora import distributed


T = TypeVar("T")

_LACKING = re.compile(
    r"can't allocate memory|not enough memory|(?:CUDA|HIP|XPU|MPS backend) out of memory"
    r"|(?:CUDA|HIP) error: out of memory|CU(?:BLAS|DNN|SOLVER|SPARSE)_STATUS_ALLOC_FAILED"
)


@dataclass
class MicroBatch:
    """Maximum number of examples per forward pass; halved for good when memory runs out.

    Found once and shared by all runs of an objective. It affects results only by rounding and by
    which inputs the dropout happens to drop.
    """

    size: int
    """At least 1."""

    def fit(self, step: Callable[[int], T]) -> T:
        """Run `step` with micro-batches of `size`, halving on out-of-memory.

        In distributed training all processes halve together.

        Args:
            step: a function of the size that can be called again.

        Raises:
            torch.OutOfMemoryError: if a single example does not fit.
        """
        while True:
            result, lacking = self._tried(step)
            if not distributed.any_of(lacking is not None):
                assert result is not None
                return result[0]
            if self.size == 1:
                raise torch.OutOfMemoryError(lacking or "in another process")
            self.size = (self.size + 1) // 2
            release()

    def _tried(self, step: Callable[[int], T]) -> tuple[tuple[T] | None, str | None]:
        """The result, or the allocator's message; not its exception, which keeps tensors alive."""
        try:
            return (step(self.size),), None
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None, str(error) or "out of memory"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, on a GPU or on the CPU.

    Beside torch's allocators, the libraries that it calls ask the device for memory themselves.
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and _LACKING.search(str(error)) is not None


@contextlib.contextmanager
def as_out_of_memory() -> Iterator[None]:
    """Context that raises torch's own error for each of the ways in which memory runs out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, torch.OutOfMemoryError) or not is_out_of_memory(error):
            raise
        raise torch.OutOfMemoryError(str(error) or "out of memory") from error


def release() -> None:
    """Release memory that nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        with contextlib.suppress(RuntimeError):  # a device that failed altogether
            torch.cuda.empty_cache()
