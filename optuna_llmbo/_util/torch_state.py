"""Isolate a computation from torch's global state, and the state from the computation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import nullcontext

import torch


@contextmanager
def default_torch() -> Iterator[None]:
    """Set default device CPU and default dtype float32 inside, and restore both after."""
    dtype = torch.get_default_dtype()
    # A default device sends every operation through Python, so it is set only when needed.
    on_cpu = torch.get_default_device().type == "cpu"
    torch.set_default_dtype(torch.float32)
    try:
        with nullcontext() if on_cpu else torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextmanager
def isolated_torch(seed: int) -> Iterator[None]:
    """Use `default_torch`, gradients on, and CPU random numbers from `seed`.

    All four are restored after, whatever happens inside.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), default_torch():
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread inside, for small matrices.

    On small matrices, several threads mostly wait for each other, and if another process uses a
    core they wait far longer than they compute.
    """
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n)
