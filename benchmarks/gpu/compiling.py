"""Trials with each decoder layer compiled."""

from __future__ import annotations

from collections.abc import Mapping
import functools
from typing import Any

from benchmarks import console
from benchmarks.compile import compiled
from benchmarks.compile import WAYS
from benchmarks.gpu import shapes
from benchmarks.gpu import training
from benchmarks.gpu import trials
from benchmarks.gpu.part import Part
from benchmarks.gpu.part import Setting
from benchmarks.gpu.record import Cell
from benchmarks.gpu.record import measured
from benchmarks.gpu.record import Record
from benchmarks.gpu.sizes import LONG
from benchmarks.gpu.sizes import SHORT


LAYERS = "layers"
LOADS = (SHORT, LONG)


def measure(setting: Setting, record: Record) -> None:
    """Measure one at a time, and the same trials compiled."""
    sizes, shape = setting.sizes, next(iter(setting.sizes.shapes))
    training.note_of(setting, record)
    model = shapes.build(shape, setting.device, sizes.dtype, sizes.shapes[shape])
    for load in LOADS:
        run = functools.partial(trials.cost, model, sizes.loads[load], 1, trials.one_at_a_time)
        training.keep(record, shape, load, training.ONE, run, needs=2)
    for load in LOADS:
        run = functools.partial(_compiled, model, setting, load)
        training.keep(record, shape, load, LAYERS, run, needs=15)


def _compiled(model: Any, setting: Setting, load: str) -> Cell:
    sizes = setting.sizes
    with compiled(WAYS[LAYERS](model), threads=None, backend=sizes.compiler):
        return trials.cost(model, sizes.loads[load], 1, trials.one_at_a_time, compiles=True)


def tables(record: Mapping[str, Any]) -> list[str]:
    """Format as `training` does, and what compiling takes."""
    cells = measured(record)
    rows = []
    for cell in cells.values():
        if cell.get("way") == LAYERS:
            compiling = cell["seconds_first"] - cell["seconds"]
            rows.append([cell["shape"], cell["load"], f"{compiling:.1f}"])
    head = ["model", "trials", "seconds that a first trial takes longer"]
    return [*training.tables(record), *([console.table(head, rows)] if rows else [])]


PART = Part(
    "torch.compile",
    "Each decoder layer compiled with its adapters, for lengths that differ. A trial of another "
    "rank compiles again; these have one rank, and a second one counts, which finds all compiled.",
    45,
    measure,
    tables,
)
