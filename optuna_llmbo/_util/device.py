"""The device that an option names."""

from __future__ import annotations

import torch

from optuna_llmbo.errors import InputError


def resolve_device(named: str | torch.device | None) -> torch.device:
    """The device, on which something can be computed.

    Args:
        named: as torch names it, such as "cuda:1"; None: CUDA if available, else the CPU.

    Raises:
        InputError: if there is no such device here.
    """
    if named is None:
        named = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(named)
        if device.type == "cuda" and device.index is None:
            # each thread has its own current device
            device = torch.device("cuda", torch.cuda.current_device())
        if device.type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:  # as torch has it
        raise InputError(
            f"device={named!r}: there is no such device here. Expected one of "
            f"{', '.join(_devices())}."
        ) from error
    return device


def _devices() -> list[str]:
    """The devices of this machine."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(["cuda"] if cuda else []), *cuda, *mps]
