"""A suggestion whose language model runs on the device."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import functools
import statistics
from typing import Any

from optuna.samplers import BaseSampler

from benchmarks import console
from benchmarks import suggestion
from benchmarks.gpu.part import Part
from benchmarks.gpu.part import Setting
from benchmarks.gpu.record import measured
from benchmarks.gpu.record import Record


ON_DEVICE, ON_CPU = "ours, language model on the device", "ours, language model on the CPU"


def measure(setting: Setting, record: Record) -> None:
    """Time the samplers' suggestions, the cheap ones first."""
    makers: dict[str, Callable[[], BaseSampler]] = {
        suggestion.OURS: suggestion.SAMPLERS[suggestion.OURS],
        suggestion.OTHERS: suggestion.SAMPLERS[suggestion.OTHERS],
        ON_DEVICE: lambda: suggestion.reading(setting.llm, str(setting.device)),
        ON_CPU: lambda: suggestion.reading(setting.llm, "cpu"),
    }
    for n in setting.sizes.trials:
        for name, make in makers.items():
            run = functools.partial(_cell, setting, make, n)
            record.measure(f"{name}, {n}", run, needs=8)


def _cell(setting: Setting, make: Callable[[], BaseSampler], n: int) -> dict[str, Any]:
    return {"seconds": suggestion.measure(make(), n, setting.sizes.suggestions)}


def tables(record: Mapping[str, Any]) -> list[str]:
    """Format the medians, and their ratios to our sampler's without a language model."""
    cells = measured(record)
    rows = []
    for name, cell in cells.items():
        sampler, _, n = name.rpartition(", ")
        median = statistics.median(cell["seconds"])
        ours = cells.get(f"{suggestion.OURS}, {n}")
        ratio = "" if ours is None else f"{median / statistics.median(ours['seconds']):.1f}"
        rows.append([sampler, n, f"{median:.2f}", ratio])
    head = ["sampler", "trials before", "seconds", "of ours without"]
    return [console.table(head, rows)] if rows else []


PART = Part(
    "A suggestion",
    "The samplers of [the same measurement on a CPU](race.md#how-long-a-suggestion-takes), on the "
    "LoRA table's surrogate; the language model, SmolLM2-135M, reads whole configurations.",
    40,
    measure,
    tables,
)
