"""One trial on several devices: each process has the whole model and a share of every batch.

Active inside a torch process group (`accelerate launch`, `torchrun`); a single process is
unaffected.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import distributed


_T = TypeVar("_T")


def rank() -> int:
    """Rank of this process; 0 for a single process."""
    return distributed.get_rank() if is_on() else 0


def share(items: Sequence[_T]) -> Sequence[_T]:
    """This process's share of items that all processes hold; all of them for a single process."""
    return items[rank() :: distributed.get_world_size()] if is_on() else items


def add_up_gradients(parameters: Iterable[torch.nn.Parameter], loss: float) -> float:
    """Sum the gradients of all processes into every process.

    Args:
        parameters: trained parameters, the same in all processes.
        loss: loss of this process's share, normalized like its gradients.

    Returns:
        The sum of the losses.
    """
    if not is_on():
        return loss
    trained = list(parameters)
    for parameter in trained:
        if parameter.grad is None:  # no example in this process's share
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    last = gradients[0].new_full((1,), loss)
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), last])
    distributed.all_reduce(flat)
    totals = flat.split([*(gradient.numel() for gradient in gradients), 1])
    for gradient, total in zip(gradients, totals[:-1], strict=True):
        gradient.copy_(total.view_as(gradient))
    return float(totals[-1])


def mean(value: float, weight: float, *, device: torch.device) -> float:
    """Weighted mean over the processes; the value itself for a single process."""
    if not is_on():
        return value
    pair = torch.tensor([value * weight if weight else 0.0, weight], dtype=torch.float64)
    pair = pair.to(device)
    distributed.all_reduce(pair)
    return float(pair[0] / pair[1])


def any_of(flag: bool) -> bool:
    """Whether `flag` is true in any process."""
    if not is_on():
        return flag
    on_cuda = distributed.get_backend() == "nccl"
    here = torch.tensor([float(flag)], device="cuda" if on_cuda else "cpu")
    distributed.all_reduce(here, distributed.ReduceOp.MAX)
    return bool(here)


def is_on() -> bool:
    """Whether a process group is active, be it of one process."""
    return distributed.is_available() and distributed.is_initialized()
