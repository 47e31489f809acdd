"""torch's random numbers from seeds, and the caller's state left as it was."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib

import numpy as np
import torch


@contextlib.contextmanager
def seeded(device: torch.device, *numbers: int) -> Iterator[None]:
    """Inside, torch draws from a state that `numbers` determine; outside, as if never entered."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
