"""The device's own limits: matrix products and copies."""

from __future__ import annotations

from collections.abc import Mapping
import functools
from typing import Any

import torch

from benchmarks import console
from benchmarks import device as devices
from benchmarks.gpu.part import Part
from benchmarks.gpu.part import Setting
from benchmarks.gpu.record import measured
from benchmarks.gpu.record import Record


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
COPY = "copy"


def measure(setting: Setting, record: Record) -> None:
    """Measure the products in both types, and a copy."""
    for name, dtype in DTYPES.items():
        record.measure(name, functools.partial(matrix, setting, dtype))
    n_bytes = setting.sizes.copied
    record.measure(
        COPY,
        lambda: {"bytes": n_bytes, "bytes_per_second": devices.copy_rate(setting.device, n_bytes)},
    )


def matrix(setting: Setting, dtype: torch.dtype) -> dict[str, Any]:
    """Measure the limit of all that multiplies matrices of a type."""
    rate = devices.matrix_rate(setting.device, dtype, n=setting.sizes.matrix)
    return {"flops_per_second": rate}


def tables(record: Mapping[str, Any]) -> list[str]:
    """Format the limits."""
    rows = []
    for name, cell in measured(record).items():
        if name == COPY:
            rows.append(["copy, bytes read and written", f"{cell['bytes_per_second']:.2e} B/s"])
        else:
            rows.append([f"matrix product, {name}", f"{cell['flops_per_second']:.2e} FLOP/s"])
    return [console.table(["limit", "measured"], rows)] if rows else []


PART = Part(
    "The device's limits",
    "A large product of random matrices in each type, in torch's default precision, and a copy "
    "within the device's memory. What is measured below stands beside the limit of its type, "
    "measured again in the same process.",
    15,
    measure,
    tables,
)
