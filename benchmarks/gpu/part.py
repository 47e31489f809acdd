"""A part of the measurement: what it needs to know, and how its results are shown."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.gpu.record import Record
from benchmarks.gpu.sizes import Sizes


@dataclass(frozen=True)
class Setting:
    """Where and how much is measured."""

    device: torch.device
    sizes: Sizes
    llm: str
    """The language model that real losses and embeddings are measured with."""
    data: str
    """What real trials train on."""


@dataclass(frozen=True)
class Part:
    """A part of the measurement, which has its own process, budget and result file."""

    title: str
    about: str
    """What is measured, for the page."""
    seconds: float
    """Its budget, the start of its process included."""
    measure: Callable[[Setting, Record], None]
    tables: Callable[[Mapping[str, Any]], list[str]]
    """Markdown tables of a record; cells that were not measured have no row."""
