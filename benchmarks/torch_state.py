"""Run a computation under a known state of torch, in a process that does nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from optuna_llmbo._util.torch_state import default_torch


@contextmanager
def isolated_torch(seed: int) -> Iterator[None]:
    """Make float32 tensors on the CPU, gradients on, random numbers from `seed`; restore them."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), default_torch():
        torch.default_generator.manual_seed(seed)
        yield
