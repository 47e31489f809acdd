"""Keep torch's global state out of a computation, and the computation out of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import nullcontext

import torch


@contextmanager
def default_torch() -> Iterator[None]:
    """Default device CPU and default dtype float32 inside; afterwards both are as they were."""
    dtype = torch.get_default_dtype()
    # A default device costs every operation a detour through Python, so none is set in vain.
    on_cpu = torch.get_default_device().type == "cpu"
    torch.set_default_dtype(torch.float32)
    try:
        with nullcontext() if on_cpu else torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextmanager
def isolated_torch(seed: int) -> Iterator[None]:
    """`default_torch`, gradients on, and CPU random numbers from `seed`.

    All four are afterwards as they were, whatever happens inside.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), default_torch():
        torch.default_generator.manual_seed(seed)
        yield


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
