"""Keep the caller's random numbers from a Trainer, which sets the seed of the whole process."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import random

import numpy as np
import torch


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Context after which Python, NumPy and torch draw as if nothing had happened."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
