"""Information that may help or mislead our sampler: priors, quantities, earlier studies."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna

from benchmarks.race import sources
from benchmarks.race.real_rows import Rows
from benchmarks.race.task import Distributions
from benchmarks.race.task import Task
from optuna_llmbo.errors import InputError
from optuna_llmbo.space.axis import Axis


N_QUANTITIES = 3


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
    """Make the studies of a task's `sources`."""
    return _studies(task, sign=1.0)


def reversed_study(task: Task) -> list[optuna.Study]:
    """Make the same studies with opposite values, so that good trials look bad."""
    return _studies(task, sign=-1.0)


def has_like_task(name: str) -> bool:
    """Check whether there is an earlier study for a task."""
    return name in sources.SOURCES


def _studies(task: Task, sign: float) -> list[optuna.Study]:
    space = dict(_space(task))
    return [_study(name, space, rows, sign) for name, rows in sources.read(task.name).items()]


def _study(name: str, space: dict[str, Any], rows: Rows, sign: float) -> optuna.Study:
    """Make a study of rows; one outside of the task's space is an error of Optuna's."""
    study = optuna.create_study(study_name=name)
    for params, value in zip(rows.configurations, rows.values, strict=True):
        trial = optuna.trial.create_trial(
            params=params, distributions=space, value=sign * float(value)
        )
        study.add_trial(trial)
    return study


def _space(task: Task) -> Distributions:
    if task.distributions is None:
        raise InputError(f"{task.name} has no fixed search space: choose another task.")
    return task.distributions
