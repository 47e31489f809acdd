"""A small table whose losses are known."""

from __future__ import annotations

from collections.abc import Callable
import itertools
import json
import math
from typing import Any

import pandas
import pytest

from benchmarks.lora_table import tables


BASE_LOSS = 5.0
CONTEXT = {"weights": "abc", "proxy": 0.1, "seed": 0}

LEVELS = {
    "rank": (1, 4),
    "alpha_ratio": (0.5, 2.0),
    "lora_dropout": (0.0, 0.1),
    "batch_size": (2, 16),
    "learning_rate": (1e-4, 1e-3, 1e-2),
}


def make_row(params: dict[str, Any], loss: float, **changes: Any) -> dict[str, Any]:
    """A row of the table; whatever is not given is the same in all."""
    context = {**CONTEXT, **{n: changes[n] for n in ("fraction", "seed") if n in changes}}  # type: ignore[misc]
    row = {
        "run_id": tables.run_id(params, context),
        "design": "grid",
        **params,
        "fraction": 0.1,
        "seed": 0,
        "status": tables.DIVERGED if math.isnan(loss) else tables.COMPLETE,
        "loss": loss,
        "curve": [] if math.isnan(loss) else [loss + 0.3, loss + 0.2, loss + 0.1, loss],
        "exact_match": math.nan,
        "base_loss": BASE_LOSS,
        "seconds": 1.5,
        "steps": 10,
        "tokens": 1000,
        "examples": 100,
        "device": "CPU",
        "versions": "{}",
        "commit": "abc",
        "date": "2026-01-01",
        "context": json.dumps(context, sort_keys=True),
    }
    return {**row, **changes}


def grid() -> list[dict[str, Any]]:
    """The configurations of `LEVELS`."""
    return [
        dict(zip(LEVELS, values, strict=True)) for values in itertools.product(*LEVELS.values())
    ]


def make_table(loss: Callable[[dict[str, Any]], float]) -> pandas.DataFrame:
    """A complete grid."""
    return tables.frame([make_row(params, loss(params)) for params in grid()])


def known_loss(params: dict[str, Any]) -> float:
    """3 at the best rate, more elsewhere; the rank helps a little, all else does nothing."""
    return 3.0 + (math.log10(params["learning_rate"]) + 3) ** 2 - 0.1 * math.log(params["rank"])


@pytest.fixture
def table() -> pandas.DataFrame:
    return make_table(known_loss)
