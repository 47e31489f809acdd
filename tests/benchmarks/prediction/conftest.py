"""A small problem whose values are known, read by a tiny language model."""

from __future__ import annotations

from collections.abc import Iterator
import math
from pathlib import Path

from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from benchmarks.prediction import problems
from benchmarks.prediction import texts
from benchmarks.prediction.problems import Problem
from benchmarks.race.task import Configuration
from benchmarks.race.task import suggest_all
from benchmarks.race.task import Task
from optuna_llmbo.space.search_space import SearchSpace


N = 64
SPACE = {"left": IntDistribution(1, 64, log=True), "right": FloatDistribution(0.0, 1.0)}


def value(configuration: Configuration) -> float:
    """Lower is better."""
    return (math.log2(configuration["left"]) - 4) ** 2 / 4 + math.sin(4 * configuration["right"])


@pytest.fixture
def problem(monkeypatch: pytest.MonkeyPatch) -> Problem:
    """What every task's name stands for."""
    monkeypatch.setattr(problems, "N_CONFIGURATIONS", N)
    task = Task(
        name="small",
        family="bbob",
        sentence="a function of two numbers",
        distributions=SPACE,
        suggest=suggest_all(SPACE),
        value=value,
        best=-1.0,
        middle=1.0,
        default={"left": 8, "right": 0.5},
    )
    made = Problem(task, SearchSpace(SPACE))
    monkeypatch.setattr(problems, "load", lambda name: made)
    return made


@pytest.fixture
def tiny(tiny_llm: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tiny language model in the place of all."""
    for name in texts.LLMS:
        monkeypatch.setitem(texts.LLMS, name, lambda: tiny_llm)
    texts._encoder.cache_clear()
    yield
    texts._encoder.cache_clear()
