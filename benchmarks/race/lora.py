"""LoRA fine-tuning tasks: the project's table of real runs, and surrogates fitted to it.

`lora-exact` is the complete grid of real runs on 10% of the data; `lora-10` and `lora-100` are
surrogates for 10% and for all of the data over the whole continuous space: see
benchmarks/lora_table/README.md.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.race import kept
from benchmarks.race.task import Configuration
from benchmarks.race.task import draw
from benchmarks.race.task import suggest_all
from benchmarks.race.task import Task


if TYPE_CHECKING:
    import pandas

    from benchmarks.lora_table.surrogate import Surrogate


SENTENCE = (
    "validation loss of LoRA fine-tuning of a small language model that writes the docstrings "
    "of Python functions, one epoch"
)

FRACTIONS = {"lora-10": 0.1, "lora-100": 1.0}
"""Fraction of the training data, by surrogate task."""

DEFAULT = {
    "rank": 16,
    "alpha_ratio": 2.0,
    "lora_dropout": 0.05,
    "batch_size": 16,
    "learning_rate": 2e-4,
}
"""Common practice: `LoRAObjective.default_params`."""

GRID_DEFAULT = DEFAULT | {"lora_dropout": 0.1, "learning_rate": 3e-4}
"""The nearest levels of the grid; a dropout of 0.05 lies halfway between two."""

N_DRAWS, N_CLIMBERS, N_ROUNDS, N_STEPS = 2**16, 16, 40, 64


def tasks() -> dict[str, Callable[[], Task]]:
    """Return a factory for each task."""
    return {"lora-exact": exact} | {name: _factory(name) for name in FRACTIONS}


def _factory(name: str) -> Callable[[], Task]:
    return lambda: surrogate(name)


def exact() -> Task:
    """Make the task of the table's complete grid, looked up."""
    from benchmarks.lora_table.objective import TableObjective

    objective = TableObjective(_table())
    losses = [objective.run(configuration)["loss"] for configuration in _grid(objective)]
    return Task(
        name="lora-exact",
        family="lora",
        sentence=SENTENCE,
        distributions=objective.distributions,
        suggest=suggest_all(objective.distributions),
        value=lambda configuration: float(objective.run(configuration)["loss"]),
        best=float(min(losses)),
        middle=float(np.median(losses)),
        default=GRID_DEFAULT,
    )


def surrogate(name: str) -> Task:
    """Make the task of a surrogate, which predicts the loss anywhere in the space."""
    model = _surrogate(name)
    known = kept.read(name)
    return Task(
        name=name,
        family="lora",
        sentence=SENTENCE,
        distributions=model.space,
        suggest=suggest_all(model.space),
        value=lambda configuration: float(model.predict([configuration])[0]),
        best=known.best,
        middle=known.middle,
        default=DEFAULT,
    )


def search(name: str) -> kept.Known:
    """Find best and middle value of a surrogate task: random draws, then local searches."""
    model = _surrogate(name)
    configurations = draw(model.space, N_DRAWS, seed=0)
    values = _predict(model, configurations)
    start = [configurations[i] for i in np.argsort(values)[:N_CLIMBERS]]
    best = min(_climb(model, configuration, seed) for seed, configuration in enumerate(start))
    return kept.Known(best=best, middle=float(np.median(values)))


def _climb(model: Surrogate, start: Configuration, seed: int) -> float:
    """Search locally: move to the best of random steps, which shrink; return the lowest value."""
    here, lowest = dict(start), _predict(model, [start])[0]
    for i in range(N_ROUNDS):
        steps = _near(model.space, here, scale=0.2 * 0.85**i, seed=seed * N_ROUNDS + i)
        values = _predict(model, steps)
        if values.min() < lowest:
            here, lowest = steps[int(values.argmin())], values.min()
    return float(lowest)


def _near(space: Mapping[str, Any], here: Configuration, scale: float, seed: int) -> list[Any]:
    """Draw configurations nearby, within `scale` of each range's width on its own scale."""
    rng = np.random.default_rng(seed)
    columns = {}
    for name, bounds in space.items():
        warp, back = (np.log, np.exp) if bounds.log else (np.asarray, np.asarray)
        width = warp(bounds.high) - warp(bounds.low)
        moved = back(warp(here[name]) + scale * width * rng.uniform(-1, 1, N_STEPS))
        moved = np.clip(moved, bounds.low, bounds.high)
        columns[name] = (np.rint(moved).astype(int) if type(bounds.low) is int else moved).tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _predict(model: Surrogate, configurations: Sequence[Configuration]) -> np.ndarray:
    chunks = range(0, len(configurations), 4096)  # to bound memory
    return np.concatenate([model.predict(configurations[i : i + 4096]) for i in chunks])


def _grid(objective: Any) -> list[dict[str, Any]]:
    levels = {name: d.choices for name, d in objective.distributions.items()}
    cells = np.array(np.meshgrid(*map(np.arange, map(len, levels.values())))).reshape(
        len(levels), -1
    )
    return [{name: levels[name][i] for name, i in zip(levels, c, strict=True)} for c in cells.T]


def _surrogate(name: str) -> Surrogate:
    from benchmarks.lora_table.surrogate import load

    return load(_table(), "cpu", FRACTIONS[name])


def _table() -> pandas.DataFrame:
    from benchmarks.lora_table import tables

    return tables.read(tables.FOLDER / "cpu.parquet")
