"""Seeded random numbers in torch that leave the caller's state unchanged."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib

import numpy as np
import torch


@contextlib.contextmanager
def seeded(device: torch.device, *numbers: int) -> Iterator[None]:
    """Context in which torch's random state is determined by `numbers`; restored afterwards."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


class Stream:
    """A device's random numbers as `seeded` gives them, drawn in several pieces.

    Draws by others in between do not change them.

    Args:
        device: the device whose generator it replaces.
        numbers: determine the initial state, as in `seeded`.
    """

    def __init__(self, device: torch.device, *numbers: int) -> None:
        if device.type == "cuda":
            torch.cuda.init()
            index = torch.cuda.current_device() if device.index is None else device.index
            self._generator = torch.cuda.default_generators[index]
        else:
            self._generator = torch.default_generator
        with seeded(device, *numbers):
            self.state = self._generator.get_state()  # can be kept and set: the same draws again

    @contextlib.contextmanager
    def drawn(self) -> Iterator[None]:
        """Context in which torch draws from this stream; the caller's state is restored."""
        others = self._generator.get_state()
        self._generator.set_state(self.state)
        try:
            yield
        finally:
            self.state = self._generator.get_state()
            self._generator.set_state(others)
