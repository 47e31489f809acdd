"""Trials on models of other sizes."""

from __future__ import annotations

from collections.abc import Mapping
import functools
from typing import Any

from benchmarks.gpu import shapes
from benchmarks.gpu import training
from benchmarks.gpu.part import Part
from benchmarks.gpu.part import Setting
from benchmarks.gpu.record import Cell
from benchmarks.gpu.record import Record
from benchmarks.gpu.sizes import LONG
from benchmarks.gpu.sizes import SHORT


PACK = 8
"""Most trials at a time."""


def measure(setting: Setting, record: Record) -> None:
    """Measure each shape but the first: one at a time, and packed on the short load."""
    sizes = setting.sizes
    training.note_of(setting, record)
    for shape in list(sizes.shapes)[1:]:
        record.measure(shape, functools.partial(_measured, setting, record, shape), needs=10)


def _measured(setting: Setting, record: Record, shape: str) -> Cell:
    sizes = setting.sizes
    model = shapes.build(shape, setting.device, sizes.dtype, sizes.shapes[shape])
    pack = max(n for n in sizes.loads[SHORT].packs if n <= PACK)
    training.costs(setting, record, model, shape, SHORT, (pack,))
    training.costs(setting, record, model, shape, LONG, ())
    return {"weights": sum(weight.numel() for weight in model.parameters())}


def tables(record: Mapping[str, Any]) -> list[str]:
    """Format as `training` does."""
    cells = {name: cell for name, cell in record["cells"].items() if "weights" not in cell}
    return training.tables({**record, "cells": cells})


PART = Part(
    "Models of other sizes",
    "The same on the shapes of Qwen2.5 0.5B, Llama 3.2 3B and Llama 3.1 8B, packed up to 8.",
    60,
    measure,
    tables,
)
