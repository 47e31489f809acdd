"""All parts, in the order in which they are run: what matters most comes first."""

from __future__ import annotations

from benchmarks.gpu import compiling
from benchmarks.gpu import limits
from benchmarks.gpu import marked_tests
from benchmarks.gpu import memory
from benchmarks.gpu import models
from benchmarks.gpu import precision
from benchmarks.gpu import reading
from benchmarks.gpu import suggesting
from benchmarks.gpu import training
from benchmarks.gpu.part import Part


PARTS: dict[str, Part] = {
    "limits": limits.PART,
    "training": training.PART,
    "memory": memory.PART,
    "tests": marked_tests.PART,
    "reading": reading.PART,
    "precision": precision.PART,
    "suggestion": suggesting.PART,
    "models": models.PART,
    "compile": compiling.PART,
}
