"""Reading the whole of the paper's grid with a language model."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
import functools
from typing import Any

import torch

from benchmarks import console
from benchmarks import encoder
from benchmarks.gpu.limits import DTYPES
from benchmarks.gpu.part import Part
from benchmarks.gpu.part import Setting
from benchmarks.gpu.record import Cell
from benchmarks.gpu.record import measured
from benchmarks.gpu.record import Record
from optuna_llmbo.embedding.encoder import MEMORY_BYTES
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source


def measure(setting: Setting, record: Record) -> None:
    """Measure each way of reading, in both types."""
    for name, dtype in reversed(DTYPES.items()):
        record.measure(name, functools.partial(_read, setting, dtype), needs=15)


def _read(setting: Setting, dtype: torch.dtype) -> Cell:
    sizes = setting.sizes
    llm = load_model(resolve_source(setting.llm), device=setting.device, dtype=dtype)
    space, rows = encoder.grid(sizes.configurations)
    options = Namespace(repeats=1, naive=sizes.naive, memory_mb=MEMORY_BYTES // 2**20)
    return encoder.measure(llm, encoder.texts_of(llm, space, rows), options)


def tables(record: Mapping[str, Any]) -> list[str]:
    """Format seconds and ratios of each way, then differences and the limit."""
    rows, more = [], []
    for name, cell in measured(record).items():
        for what, n, tokens, seconds, ratio in encoder.lines_of(cell):
            shown = "" if ratio is None else f"{ratio:.0f}"
            rows.append([name, what, str(n), str(tokens or ""), f"{seconds:.2f}", shown])
        more.append(
            [
                *(name, f"{cell['max_abs_diff']:.1e}", f"{cell['mean_abs_embedding']:.2f}"),
                *(f"{cell['speedup_shared_passage']:.0f}", f"{cell['limit_ratio']:.3f}"),
                f"{cell.get('peak_memory_cuda_bytes', 0) / 2**30:.2f}",
            ]
        )
    if not rows:
        return []
    head = ["type", "what", "configurations", "tokens", "seconds", "ratio to naive"]
    facts = ["type", "largest difference to naive", "mean size", "shared passage, ratio to naive"]
    return [
        console.table(head, rows),
        console.table([*facts, "limit ratio", "peak, GiB"], more),
    ]


PART = Part(
    "Reading the whole grid",
    "SmolLM2-135M reads the paper's grid of 45,360 configurations; naive reading and the shared "
    "passage are measured on 256 of them, spread evenly. What the ways and the limit ratio are, "
    "says [the measurement on a CPU](encoder.md).",
    60,
    measure,
    tables,
)
