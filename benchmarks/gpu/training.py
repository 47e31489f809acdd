"""Trials on the shape of a model of a billion weights, in every way."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import functools
from pathlib import Path
import tempfile
from typing import Any

from benchmarks import console
from benchmarks.gpu import limits
from benchmarks.gpu import shapes
from benchmarks.gpu import trials
from benchmarks.gpu.part import Part
from benchmarks.gpu.part import Setting
from benchmarks.gpu.record import Cell
from benchmarks.gpu.record import measured
from benchmarks.gpu.record import Record
from benchmarks.gpu.sizes import Load
from benchmarks.gpu.sizes import LONG
from benchmarks.gpu.sizes import SHORT
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import quiet_transformers
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.lora.base_model import load_base
from optuna_llmbo.lora.base_model import QUANTIZATIONS


ONE, RELOAD, LIMIT = "one at a time", "reload", "limit"
ATTENTIONS = ("eager", "flash_attention_2", "flex_attention")
"""Beside torch's own choice, which is the default."""

Change = Callable[[Any], contextlib.AbstractContextManager[None]]


def measure(setting: Setting, record: Record) -> None:
    """Measure the ways to run trials, then what changes the model's own work."""
    shape = next(iter(setting.sizes.shapes))
    note_of(setting, record)
    with tempfile.TemporaryDirectory() as folder:
        _in_memory(setting, record, shape, Path(folder))
        _from_files(setting, record, shape, Path(folder))


def _in_memory(setting: Setting, record: Record, shape: str, folder: Path) -> None:
    """Measure a model that was made, and save it."""
    sizes = setting.sizes
    model = shapes.build(shape, setting.device, sizes.dtype, sizes.shapes[shape])
    for load, data in sizes.loads.items():
        costs(setting, record, model, shape, load, data.packs)
    changes: dict[str, Change] = {"gradient checkpointing": checkpointing}
    changes |= {name: functools.partial(attention, name) for name in ATTENTIONS}
    for name, change in changes.items():
        run = functools.partial(_changed, change, model, sizes.loads[LONG])
        keep(record, shape, LONG, name, run, needs=2)
    with quiet_transformers():
        shapes.save(model, folder)


def _changed(change: Change, model: Any, data: Load) -> Cell:
    with change(model):  # flex attention compiles itself
        return trials.cost(model, data, 1, trials.one_at_a_time, compiles=True)


def note_of(setting: Setting, record: Record) -> None:
    """Keep what all cells of trials share: the data, and the device's limit."""
    record.note(loads={name: str(load) for name, load in setting.sizes.loads.items()})
    record.measure(LIMIT, lambda: limits.matrix(setting, setting.sizes.dtype))


def costs(
    setting: Setting, record: Record, model: Any, shape: str, load: str, packs: Sequence[int]
) -> None:
    """Measure trials one at a time and packed."""
    sizes = setting.sizes
    data = sizes.loads[load]
    ways = {ONE: (sizes.one, trials.one_at_a_time)}
    ways |= {f"packed, {n}": (n, trials.packed) for n in packs}
    for name, (n, way) in ways.items():
        run = functools.partial(trials.cost, model, data, n, way)
        keep(record, shape, load, name, run, needs=3)


def keep(
    record: Record, shape: str, load: str, way: str, run: Callable[[], Cell], needs: float
) -> None:
    """Measure a cell and say in it what it is."""
    about = {"shape": shape, "load": load, "way": way}
    record.measure(f"{shape}, {load}, {way}", lambda: about | run(), needs=needs)


@contextlib.contextmanager
def checkpointing(model: Any) -> Iterator[None]:
    """Compute activations again in the backward pass, inside."""
    model.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        yield
    finally:
        model.gradient_checkpointing_disable()


@contextlib.contextmanager
def attention(implementation: str, model: Any) -> Iterator[None]:
    """Compute attention in another way, inside."""
    before = model.config._attn_implementation
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _from_files(setting: Setting, record: Record, shape: str, folder: Path) -> None:
    """Measure what needs the model in a folder: a reload, and quantized weights."""
    sizes, device = setting.sizes, setting.device
    source = resolve_source(folder)

    def load_model_anew() -> Any:
        return load_model(source, device=device, dtype=sizes.dtype).model

    for load in (SHORT, LONG):
        run = functools.partial(trials.reloaded, load_model_anew, sizes.loads[load])
        keep(record, shape, load, RELOAD, run, needs=6)
    for name in QUANTIZATIONS:

        def quantized(name: str = name) -> Cell:
            base = load_base(
                folder, device=device, dtype=sizes.dtype, max_length=2, quantization=name
            )
            return trials.cost(base.model, sizes.loads[LONG], 1, trials.one_at_a_time)

        keep(record, shape, LONG, name, quantized, needs=6)


def tables(record: Mapping[str, Any]) -> list[str]:
    """Format the cells of trials, relative to one at a time and to the limit."""
    cells = measured(record)
    limit = cells.pop(LIMIT, {}).get("flops_per_second")
    ones = {(one["shape"], one["load"]): one for one in cells.values() if one["way"] == ONE}
    rows = [
        [
            *(cell["shape"], cell["load"], cell["way"]),
            *_numbers(cell, ones.get((cell["shape"], cell["load"])), limit),
        ]
        for cell in cells.values()
    ]
    said = [f"- *{name}*: {load}" for name, load in record["loads"].items()]
    return ["\n".join(said), console.table(_HEAD, rows)] if rows else []


_HEAD = [
    *("model", "trials", "way", "tokens/s", "of one at a time", "of the limit"),
    *("peak, GiB", "weights, GiB", "operations a step and trial", "notes"),
]


def _numbers(cell: dict[str, Any], one: dict[str, Any] | None, limit: float | None) -> list[str]:
    asked = cell.get("operations_per_step")
    notes = []
    if cell["rows_lowered_to"] is not None:
        notes.append(f"memory ran out: {cell['rows_lowered_to']} examples a pass")
    if "seconds_loading" in cell:
        notes.append(f"{cell['seconds_loading']:.1f} s of loading")
    return [
        f"{trials.rate(cell):.0f}",
        "" if one is None else f"{trials.rate(cell) / trials.rate(one):.2f}",
        "" if limit is None else f"{trials.share_of_limit(cell, limit):.1%}",
        f"{cell['peak_bytes'] / 2**30:.1f}",
        f"{cell['weight_bytes'] / 2**30:.1f}",
        "" if asked is None else f"{asked / cell['trials']:.0f}",
        "; ".join(notes),
    ]


PART = Part(
    "Trials on a model of a billion weights",
    "A model of the shape of Llama 3.2 1B with random weights, and adapters of ranks 8 to 32 on "
    "all linear layers. The goal is a pack of eight at three times the speed of one at a time, or "
    "more. *Reload* loads the model for each trial, *packed, n* trains n adapters at "
    "once, the others train one at a time. *Of the limit*: the operations needed, without padding "
    "and what is computed again, over those of a matrix product of the same type in the same "
    "time. *Operations*: what torch is asked for; a GPU starts most of them one by one.",
    120,
    measure,
    tables,
)
