"""The same trials on a real model in bfloat16 and in float32."""

from __future__ import annotations

from collections.abc import Mapping
import functools
import json
from typing import Any

from benchmarks import console
from benchmarks import precision
from benchmarks.gpu.part import Part
from benchmarks.gpu.part import Setting
from benchmarks.gpu.record import measured
from benchmarks.gpu.record import Record


def measure(setting: Setting, record: Record) -> None:
    """Measure the trials in both types."""
    sizes = setting.sizes
    record.note(rates=list(sizes.rates))
    for name in precision.DTYPES:
        run = functools.partial(
            precision.measure,
            name,
            rates=sizes.rates,
            model=setting.llm,
            train=setting.data,
            device=setting.device,
            proxy=sizes.proxy,
            validation=sizes.validation,
            max_length=sizes.longest,
        )
        record.measure(name, run, needs=10)


def tables(record: Mapping[str, Any]) -> list[str]:
    """Format the losses by type, and their difference beside that on a CPU."""
    found = measured(record)
    if found.keys() != precision.DTYPES.keys():
        return []
    kept = json.loads(precision.RESULTS.read_text())["dtypes"]
    there = dict(zip(precision.RATES, _differences(kept), strict=False))
    half, full = (found[name]["losses"] for name in precision.DTYPES)
    rows = [
        [f"{rate:g}", f"{a:.4f}", f"{b:.4f}", f"{a - b:+.4f}", f"{there.get(rate, 0.0):+.4f}"]
        for rate, a, b in zip(record["rates"], half, full, strict=True)
    ]
    base = [found[name]["base"] for name in precision.DTYPES]
    first = ["no adapter", *(f"{loss:.4f}" for loss in base), f"{base[0] - base[1]:+.4f}", ""]
    head = ["learning rate", "bfloat16", "float32", "difference", "on a CPU"]
    seconds = [found[name]["seconds"] for name in precision.DTYPES]
    ratio = f"The trials in bfloat16 took {seconds[0] / seconds[1]:.2f} of the time in float32."
    return [console.table(head, [first, *rows]), ratio]


def _differences(found: Mapping[str, Any]) -> list[float]:
    half, full = (found[name]["losses"] for name in precision.DTYPES)
    return [a - b for a, b in zip(half, full, strict=True)]


PART = Part(
    "bfloat16 or float32",
    "The trials of [the same measurement on a CPU](training.md#bfloat16-or-float32): SmolLM2-135M "
    "on docstrings, validation loss in nats per response token.",
    40,
    measure,
    tables,
)
