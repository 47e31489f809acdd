"""Keep torch's global state out of a computation, and the computation out of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import nullcontext

import torch


@contextmanager
def isolated_torch(seed: int) -> Iterator[None]:
    """Default device CPU, default dtype float32, gradients on, CPU random numbers from `seed`.

    All four are afterwards as they were, whatever happens inside.
    """
    dtype = torch.get_default_dtype()
    # A default device costs every operation a detour through Python, so none is set in vain.
    on_cpu = torch.get_default_device().type == "cpu"
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.set_default_dtype(torch.float32)
        torch.default_generator.manual_seed(seed)
        try:
            with nullcontext() if on_cpu else torch.device("cpu"):
                yield
        finally:
            torch.set_default_dtype(dtype)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run small matrices on one thread: several wait for each other most of the time, and where
    another process uses a core they wait far longer than they compute."""
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n)
