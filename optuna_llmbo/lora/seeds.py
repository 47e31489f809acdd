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


class Stream:
    """Random numbers of a device as `seeded` gives them, drawn bit by bit.

    What others draw between two uses does not change them.

    Args:
        device: whose generator it stands in for.
        numbers: what determines the state it starts in, as of `seeded`.
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
        """Inside, torch draws from this stream on; outside, as if never entered."""
        others = self._generator.get_state()
        self._generator.set_state(self.state)
        try:
            yield
        finally:
            self.state = self._generator.get_state()
            self._generator.set_state(others)
