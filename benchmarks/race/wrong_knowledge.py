"""Knowledge that is wrong, as a user's pack that takes precedence over the built-in ones.

All but `other_domain` start from the built-in packs that are relevant to a task, and change only
their numbers, typical ranges and recommended values: prose and derived quantities stay.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import math
import numbers
import re
from typing import Any
import zlib

import numpy as np

from benchmarks.race.task import Distributions
from benchmarks.race.task import Task
from optuna_llmbo.errors import InputError
from optuna_llmbo.knowledge import Hyperparameter
from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.knowledge import load_knowledge
from optuna_llmbo.knowledge.pack import normalise
from optuna_llmbo.space.axis import Axis


Change = Callable[[str, float], float]
"""What becomes of a number that is said of a parameter, given the parameter's name."""

FACTOR = 100.0
"""How far off learning rates are."""

N_RECOMMENDED = 2
WIDTH = 0.25
"""Width of a typical range of another domain, as a part of the parameter's range."""


def rates_high(task: Task) -> dict[str, Any]:
    """Make a pack in which every learning rate is a hundred times too high."""
    return _rates(task, FACTOR)


def rates_low(task: Task) -> dict[str, Any]:
    """Make a pack in which every learning rate is a hundred times too low."""
    return _rates(task, 1.0 / FACTOR)


def reversed_in_range(task: Task) -> dict[str, Any]:
    """Make a pack in which all numbers are mirrored in the parameters' ranges: low is high.

    Numbers outside of a range count as its end. A typical range that the parameter's does not meet
    is left out: it says nothing of the space, nor does its mirror image.
    """
    axes = {name: Axis(distribution) for name, distribution in _space(task).items()}

    def mirror(name: str, number: float) -> float:
        place = axes[name].place(number)
        return number if math.isnan(place) else axes[name].from_unit(1.0 - place)

    return _changed(task, mirror)


def other_domain(task: Task) -> dict[str, Any]:
    """Make a pack of another domain that claims all parameters that have an order.

    Ranges and, within them, recommended values lie at random places; the seed is the task's name.
    A parameter with few values may have both ends of its range at one; it is recommended only.
    """
    rng = np.random.default_rng(zlib.crc32(task.name.encode()))
    axes = {name: Axis(distribution) for name, distribution in _space(task).items()}
    hyperparameters = {}
    recommended: list[dict[str, Any]] = [{} for _ in range(N_RECOMMENDED)]
    for name, axis in axes.items():
        if axis.is_nominal:
            continue
        left = rng.uniform(0.0, 1.0 - WIDTH)
        ends = (axis.from_unit(left), axis.from_unit(left + WIDTH))
        hyperparameters[normalise(name)] = _hyperparameter("a number.", "", ends)
        for values in recommended:
            values[normalise(name)] = axis.from_unit(rng.uniform(left, left + WIDTH))
    return _mapping("another domain", hyperparameters, {}, recommended)


def has_rates(task: Task) -> bool:
    """Check whether the built-in packs give numbers for a learning rate of a task."""
    return any(_is_rate(name, task) for name in _numbers(task))


def has_numbers(task: Task) -> bool:
    """Check whether the built-in packs give numbers for parameters of a task."""
    return bool(_numbers(task))


def _rates(task: Task, factor: float) -> dict[str, Any]:
    return _changed(task, lambda name, n: n * factor if _is_rate(name, task) else n)


def _is_rate(name: str, task: Task) -> bool:
    found = _readings(_relevant(task), name)
    return any(hyperparameter.name.startswith("learning_rate") for hyperparameter in found)


def _numbers(task: Task) -> list[str]:
    """Return the parameters for which there is a typical range or a recommended number."""
    knowledge = _relevant(task)
    return [
        name
        for name in task.distributions or {}
        if knowledge.typical_range(name) is not None
        or any(map(_is_number, _recommended(knowledge, name)))
    ]


def _changed(task: Task, change: Change) -> dict[str, Any]:
    """Make a pack of what the built-in packs say of a task, in its own names."""
    space, knowledge = _space(task), _relevant(task)
    if not has_numbers(task):
        raise InputError(
            f"the built-in packs have no numbers for {task.name}, so there is nothing to change: "
            "choose a task whose parameters they know."
        )
    hyperparameters = {}
    recommended: list[dict[str, Any]] = [{} for _ in range(knowledge.n_recommended)]
    spelling = {normalise(name): normalise(name) for name in space}
    for name in space:
        readings = list(_readings(knowledge, name))
        if not readings:
            continue
        first = readings[0]
        typical = knowledge.typical_range(name)
        ends = typical and tuple(sorted(change(name, end) for end in typical))
        own = normalise(name)
        hyperparameters[own] = _hyperparameter(first.description, first.relations, ends)
        for values, value in zip(recommended, _recommended(knowledge, name), strict=True):
            if value is not None:
                values[own] = change(name, value) if _is_number(value) else value
        for hyperparameter in readings:
            spelling.setdefault(hyperparameter.name, own)
    derived = {
        quantity.name: {
            "expression": _respelled(quantity.expression.text, spelling),
            "description": quantity.description,
        }
        for quantity in knowledge.derived(list(space))
    }
    summary = " ".join(pack.summary for pack in knowledge.packs)
    return _mapping(summary, hyperparameters, derived, recommended)


def _mapping(
    summary: str,
    hyperparameters: dict[str, Any],
    derived: dict[str, Any],
    recommended: list[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "pack": {"name": "wrong", "summary": summary},
        "hyperparameters": hyperparameters,
        "derived": derived,
        "recommended": [
            {"name": f"wrong {i}", "source": "made up", "values": values}
            for i, values in enumerate(recommended)
        ],
    }


def _hyperparameter(
    description: str, relations: str, typical: tuple[float, ...] | None
) -> dict[str, Any]:
    entry: dict[str, Any] = {"description": description, "relations": relations}
    if typical is not None and typical[0] < typical[1]:
        entry["typical"] = list(typical)
    return entry


def _relevant(task: Task) -> Knowledge:
    return load_knowledge("auto").relevant(list(task.distributions or {}))


def _readings(knowledge: Knowledge, name: str) -> Iterator[Hyperparameter]:
    found = (pack.find(name) for pack in knowledge.packs)
    return (hyperparameter for hyperparameter in found if hyperparameter is not None)


def _recommended(knowledge: Knowledge, name: str) -> list[Any]:
    return [knowledge.recommended_value(i, name) for i in range(knowledge.n_recommended)]


def _respelled(formula: str, spelling: dict[str, str]) -> str:
    return re.sub(r"[a-z_]\w*", lambda match: spelling.get(match[0], match[0]), formula)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _space(task: Task) -> Distributions:
    if task.distributions is None:
        raise InputError(f"{task.name} has no fixed search space: choose another task.")
    return task.distributions
