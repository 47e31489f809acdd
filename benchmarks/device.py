"""The device that is measured: facts, clocks, memory and its own limits; all calls to CUDA."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import platform
import shutil
import statistics
import subprocess
import time
from typing import Any
from typing import TypeVar

import torch

from optuna_llmbo.lora.memory import release
from optuna_llmbo.lora.resources import peak_memory_bytes


T = TypeVar("T")


def is_cuda(device: torch.device) -> bool:
    """Tell whether it is a CUDA device."""
    return device.type == "cuda"


def name(device: torch.device) -> str:
    """Return the name that its maker gave it."""
    return torch.cuda.get_device_name(device) if is_cuda(device) else f"{platform.machine()} CPU"


def about(device: torch.device) -> dict[str, Any]:
    """Return what a result must say of the device; on a CPU its name alone."""
    if not is_cuda(device):
        return {"name": name(device)}
    found = torch.cuda.get_device_properties(device)
    return {
        "name": found.name,
        "memory_bytes": found.total_memory,
        "multiprocessors": found.multi_processor_count,
        "capability": f"{found.major}.{found.minor}",
        "cuda": torch.version.cuda,
        "driver": _driver(),
    }


def _driver() -> str | None:
    """Return the driver's version, if its tool is there."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    told = subprocess.run(command, capture_output=True, text=True).stdout.split()
    return told[0] if told else None


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if is_cuda(device):
        torch.cuda.synchronize(device)


def timed(work: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """Return the seconds that the work takes on the device, and its result."""
    synchronize(device)
    start = time.perf_counter()
    result = work()
    synchronize(device)
    return time.perf_counter() - start, result


def matrix_rate(
    device: torch.device, dtype: torch.dtype, *, n: int | None = None, repeats: int = 10
) -> float:
    """Measure a large matrix product of random numbers, in the type's usual precision.

    Args:
        device: where.
        dtype: of both factors and the product.
        n: rows and columns of the matrices; None: 8192 on CUDA, else 2048.
        repeats: products, of whose times the median counts.

    Returns:
        Floating-point operations a second.
    """
    n = n or (8192 if is_cuda(device) else 2048)
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    torch.matmul(a, b)
    seconds = [timed(lambda: torch.matmul(a, b), device)[0] for _ in range(repeats)]
    return 2 * n**3 / statistics.median(seconds)


def copy_rate(device: torch.device, n_bytes: int, *, repeats: int = 10) -> float:
    """Measure a copy within the device's memory.

    Args:
        device: where.
        n_bytes: size of what is copied; several times the caches.
        repeats: copies, of whose times the median counts.

    Returns:
        Bytes a second, those read and those written.
    """
    source, target = (torch.zeros(n_bytes, dtype=torch.uint8, device=device) for _ in range(2))
    target.copy_(source)
    seconds = [timed(lambda: target.copy_(source), device)[0] for _ in range(repeats)]
    return 2 * n_bytes / statistics.median(seconds)


def allocated_bytes(device: torch.device) -> int:
    """Return what tensors occupy on a CUDA device; 0 on a CPU, where nobody counts."""
    return int(torch.cuda.memory_allocated(device)) if is_cuda(device) else 0


def peak_bytes(device: torch.device) -> int:
    """Return the most that tensors occupied since `reset_peak_memory`; 0 on a CPU."""
    return peak_memory_bytes(device) if is_cuda(device) else 0


@contextlib.contextmanager
def limited_to(device: torch.device, n_bytes: int) -> Iterator[None]:
    """Let torch take this much of a CUDA device's memory inside; it raises its own error for more.

    The error is the allocator's, as where the device is full; the device itself keeps the rest,
    which code that is loaded meanwhile needs.
    """
    release()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, n_bytes / total), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        release()


@contextlib.contextmanager
def filled_but(device: torch.device, n_bytes: int) -> Iterator[None]:
    """Fill a CUDA device's memory inside, up to so many bytes."""
    release()
    free, _ = torch.cuda.mem_get_info(device)
    filling = torch.empty(max(0, free - n_bytes), dtype=torch.uint8, device=device)
    try:
        yield
    finally:
        del filling
        release()
