"""Information that may help or mislead our sampler: priors, quantities, earlier studies."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna

from benchmarks.race.task import Distributions
from benchmarks.race.task import draw
from benchmarks.race.task import Task
from optuna_llmbo.errors import InputError
from optuna_llmbo.space.axis import Axis


N_SOURCE = 40
"""Number of trials in an earlier study, uniformly random."""

N_QUANTITIES = 3

EARLIER = {"lora-10": "lora-100", "lora-100": "lora-10"}
"""Task of the earlier study; for HPOBench it is always `car`, on which nothing is reported."""


def wrong_prior(task: Task) -> dict[str, tuple[float, float]]:
    """Return the quarter of each range that is farthest from the default."""
    ranges = {}
    for name, distribution in _space(task).items():
        axis = Axis(distribution)
        if not axis.is_nominal:
            ends = (0.75, 1.0) if axis.to_unit(task.default[name]) < 0.5 else (0.0, 0.25)
            low, high = map(axis.from_unit, ends)
            if low < high:
                ranges[name] = (low, high)
    return ranges


def wrong_quantities(task: Task) -> dict[str, Any]:
    """Make a pack of meaningless quantities: products of random powers, or random sums."""
    space = _space(task)
    positive = [name for name, d in space.items() if Axis(d).numbers(np.zeros(1))[0] > 0]
    rng = np.random.default_rng(0)
    derived = {}
    for i in range(N_QUANTITIES):
        names = positive or list(space)
        weights = rng.normal(size=len(names)).round(2)
        form, sign = ("{} ** ({})", " * ") if positive else ("{} * ({})", " + ")
        expression = sign.join(form.format(*pair) for pair in zip(names, weights, strict=True))
        derived[f"nonsense_{i}"] = {"expression": expression, "description": "means nothing."}
    return {
        "pack": {"name": "nonsense", "summary": "Nothing is known."},
        "hyperparameters": {name: {"description": "a number."} for name in space},
        "derived": derived,
    }


def earlier_study(task: Task) -> list[optuna.Study]:
    """Make a study of random trials on a similar task."""
    return [_study(task, sign=1.0)]


def reversed_study(task: Task) -> list[optuna.Study]:
    """Make the same study with opposite values, so that good trials look bad."""
    return [_study(task, sign=-1.0)]


def has_like_task(name: str) -> bool:
    """Check whether there is an earlier study for a task."""
    return name.startswith("hpobench-") or name in EARLIER


def _study(task: Task, sign: float) -> optuna.Study:
    from benchmarks.race import tasks

    if task.family == "hpobench":
        suffix = "-grid" if task.name.endswith("-grid") else ""
        source = tasks.load(f"hpobench-car{suffix}")
    elif task.name in EARLIER:
        source = tasks.load(EARLIER[task.name])
    else:
        raise InputError(
            f"{task.name} has no similar task: choose one of HPOBench's, lora-10 or lora-100."
        )
    space = _space(task)
    study = optuna.create_study(study_name=source.name)
    for params in draw(space, N_SOURCE, seed=0):
        value = sign * source.value(params)
        trial = optuna.trial.create_trial(params=params, distributions=dict(space), value=value)
        study.add_trial(trial)
    return study


def _space(task: Task) -> Distributions:
    if task.distributions is None:
        raise InputError(f"{task.name} has no fixed search space: choose another task.")
    return task.distributions
