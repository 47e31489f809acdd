"""What training programs write of their metrics: one entry for each step that they tell of."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
import json
import math
import re
from typing import Any

from optuna_llmbo.command.numbers import number_of


_STEPS = ("step", "current_steps", "global_step", "current_step", "steps", "iteration", "iter")
_TOTALS = ("total_steps", "max_steps", "total")
_PERCENTS = ("percentage", "percent")
_EPOCHS = ("epoch", "epochs")
_DICT = re.compile(r"\{.*\}")
_NOT_FINITE = re.compile(r"(?<=:)\s*(-?)(nan|inf|NaN|Infinity)\b")
_LONGEST = 100_000
"""Characters of a line beyond which it is no metrics."""


@dataclass(frozen=True)
class Entry:
    """Metrics that were written together, and when in the training; None where it does not say."""

    values: Mapping[str, float]
    """Numbers by name; those within tables have dotted names."""
    step: float | None = None
    total: float | None = None
    """Steps of the whole training."""
    epoch: float | None = None
    percent: float | None = None


def entry_of(found: Any, total: float | None = None) -> Entry | None:
    """The entry that a table of metrics is; None if it holds no number.

    Args:
        found: the table.
        total: steps of the whole training, where the table does not say.
    """
    if not isinstance(found, Mapping):
        return None
    values = _numbers(found, "")
    if not values:
        return None

    def first(names: tuple[str, ...]) -> float | None:
        there = (values[name] for name in names if name in values)
        return next((value for value in there if math.isfinite(value)), None)

    return Entry(values, first(_STEPS), first(_TOTALS) or total, first(_EPOCHS), first(_PERCENTS))


def _numbers(table: Mapping[Any, Any], prefix: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{prefix}{name}.")
        elif (number := number_of(value)) is not None:
            found[f"{prefix}{name}"] = number
    return found


def entry_of_line(line: str) -> Entry | None:
    """The entry that a line holds, as JSON or as Python prints a dict; None if it holds none."""
    held = _DICT.search(line)
    if held is None or len(line) > _LONGEST:
        return None
    try:
        return entry_of(json.loads(held[0]))
    except ValueError:
        pass
    try:
        return entry_of(ast.literal_eval(_NOT_FINITE.sub(r"'\1\2'", held[0])))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def entries_of_json(text: str) -> list[Entry] | None:
    """The entries of a whole JSON file: the `log_history` of `trainer_state.json`, a list of
    tables, or one table; None if it is not (yet) JSON."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    total = None
    if isinstance(found, Mapping) and isinstance(found.get("log_history"), list):
        steps = number_of(found.get("max_steps"))
        total = steps if steps and steps > 0 else None
        found = found["log_history"]
    tables = found if isinstance(found, list) else [found]
    entries = (entry_of(table, total) for table in tables)
    return [entry for entry in entries if entry is not None]


def entry_of_match(found: re.Match[str], metric: str) -> Entry | None:
    """The entry of a match of the user's expression, whose groups `step`, `total`, `epoch` and
    `percent` say when; None if its value is no number."""
    groups = found.groupdict()
    value = number_of(groups.get("value") if "value" in groups else found[1])
    if value is None:
        return None
    where = {name: number_of(groups.get(name)) for name in ("step", "total", "epoch", "percent")}
    return Entry({metric: value}, **where)
