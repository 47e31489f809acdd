"""A tiny task that is made of a table, read by a tiny language model."""

from __future__ import annotations

from collections.abc import Iterator
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution
import pandas
import pytest

from benchmarks.choices import problems
from benchmarks.choices import reading
from benchmarks.choices.problems import Problem
from benchmarks.prediction import texts
from benchmarks.race import real_rows
from benchmarks.race.task import Task
from optuna_llmbo.space.search_space import SearchSpace


WORDS = [f"{colour} {shape}" for colour in ("red", "green") for shape in "abcdefgh"]
SIDES = ["left", "right", "middle"]
LEVELS: dict[str, list[Any]] = {"amount": [1.0, 2.0, 4.0, 8.0], "side": SIDES, "word": WORDS}
N_ROWS = 4 * 3 * 16


@pytest.fixture
def problem(monkeypatch: pytest.MonkeyPatch) -> Problem:
    """What every task's name stands for: a number, 3 choices, 16 choices."""
    rows = list(itertools.product(*LEVELS.values()))
    parameters = pandas.DataFrame(rows, columns=list(LEVELS))
    index = [[levels.index(row[i]) for row in rows] for i, levels in enumerate(LEVELS.values())]
    noise = np.random.default_rng(0).normal(size=len(rows))
    values = 0.3 * np.square(index[0]) - np.array(index[1]) + 2.0 * (np.array(index[2]) < 8)
    table = real_rows.averaged(
        parameters, real_rows.over(LEVELS), pandas.Series(values + 0.1 * noise)
    )
    assert isinstance(table.space["word"], CategoricalDistribution)
    task: Task = real_rows.make(
        "choices-small", "a table", table, real_rows.looked_up(table, LEVELS), {}, middle=1.0
    )
    made = Problem(task, SearchSpace(table.space))
    monkeypatch.setattr(problems, "load", lambda name: made)
    return made


@pytest.fixture
def tiny(tiny_llm: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tiny language model in the place of all."""
    for name in texts.LLMS:
        monkeypatch.setitem(texts.LLMS, name, lambda: tiny_llm)
    reading.views.cache_clear()
    reading._options.cache_clear()
    yield
    reading.views.cache_clear()
    reading._options.cache_clear()
