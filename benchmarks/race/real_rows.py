"""Rows of a published table, and the values of all other configurations: looked up or fitted."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pandas

from benchmarks.race import trees
from benchmarks.race.task import Configuration
from benchmarks.race.task import Distributions
from benchmarks.race.task import draw
from benchmarks.race.task import N_DRAWS
from benchmarks.race.task import nearest_in_log
from benchmarks.race.task import suggest_all
from benchmarks.race.task import Task
from benchmarks.race.task import TrialFailed


Predict = Callable[[Sequence[Configuration]], np.ndarray]
"""Computes the values of configurations, (n,); nan where the trial fails."""

Prepare = Callable[[Configuration], Configuration]


@dataclass(frozen=True)
class Rows:
    """Configurations of a table and their values, repeats of a configuration merged."""

    space: Distributions
    configurations: list[dict[str, Any]]
    values: np.ndarray
    """The median or mean of the repeats, (n,); nan where half of them failed."""


def merged(table: pandas.DataFrame, space: Distributions, values: pandas.Series) -> Rows:
    """Merge the rows of each configuration: the median of its values, nan if half are missing."""
    groups = values.groupby([table[name] for name in space], sort=False)
    medians = groups.median().where(groups.count() > groups.size() / 2)
    configurations = medians.index.to_frame(index=False).to_dict("records")
    return Rows(space, configurations, medians.to_numpy())


def averaged(table: pandas.DataFrame, space: Distributions, values: pandas.Series) -> Rows:
    """Merge the rows of each configuration: the mean of its values, of which none is missing."""
    groups = values.groupby([table[name] for name in space], sort=False, dropna=False)
    means = groups.mean()
    configurations = means.index.to_frame(index=False).to_dict("records")
    return Rows(space, configurations, means.to_numpy())


def over(levels: Mapping[str, list[Any]]) -> Distributions:
    """Return the search space over levels: choices of words, or log ranges of numbers."""
    return {name: _over_one(some) for name, some in levels.items()}


def _over_one(levels: list[Any]) -> Any:
    if isinstance(levels[0], str):
        return CategoricalDistribution(levels)
    kind = IntDistribution if isinstance(levels[0], int) else FloatDistribution
    return kind(levels[0], levels[-1], log=True)


def looked_up(rows: Rows, levels: Mapping[str, list[Any]]) -> Predict:
    """Return the values of the nearest cells of a grid; cells without a row fail."""

    cells = {
        cell(levels, configuration): value
        for configuration, value in zip(rows.configurations, rows.values, strict=True)
    }
    return lambda configurations: np.array(
        [cells.get(cell(levels, configuration), math.nan) for configuration in configurations]
    )


def cell(levels: Mapping[str, list[Any]], configuration: Configuration) -> tuple[int, ...]:
    """Return the cell of a grid that is nearest to a configuration: an index for each level."""
    return tuple(_level(some, configuration[name]) for name, some in levels.items())


def _level(levels: list[Any], value: Any) -> int:
    return levels.index(value) if isinstance(value, str) else nearest_in_log(levels, value)


def fitted(rows: Rows) -> Predict:
    """Return the predictions of a surrogate of the values."""
    model = trees.regression(trees.encode(rows.space, rows.configurations), rows.values)
    return lambda configurations: model.predict(trees.encode(rows.space, configurations))


def fitted_with_failures(rows: Rows, prepare: Prepare) -> Predict:
    """Return the predictions of surrogates of failures, and of the values of what succeeds.

    Args:
        rows: the rows, nan where they failed.
        prepare: what becomes of a configuration before it is looked at.
    """
    features = trees.encode(rows.space, rows.configurations)
    fails = np.isnan(rows.values)
    failure = trees.classification(features, fails)
    model = trees.regression(features[~fails], rows.values[~fails])

    def predict(configurations: Sequence[Configuration]) -> np.ndarray:
        asked = trees.encode(rows.space, map(prepare, configurations))
        return np.where(failure.predict(asked), math.nan, model.predict(asked))

    return predict


def make(
    name: str,
    sentence: str,
    rows: Rows,
    predict: Predict,
    default: Configuration,
    failure: float | None = None,
    middle: float | None = None,
) -> Task:
    """Make a task of a table's rows and what is predicted from them.

    Args:
        name: name of the task, whose first word is the family.
        sentence: description of what is being optimized.
        rows: the rows of the table, whose lowest value is the best.
        predict: computes the values of configurations.
        default: the configuration to try without a search.
        failure: the value of what fails; None: `TrialFailed` is raised.
        middle: the middle value; None: the median of random configurations that succeed.
    """

    def value(configuration: Configuration) -> float:
        predicted = float(predict([configuration])[0])
        if not math.isnan(predicted):
            return predicted
        if failure is None:
            raise TrialFailed(f"{name} has no value at {dict(configuration)}.")
        return failure

    if middle is None:
        middle = float(np.nanmedian(predict(draw(rows.space, N_DRAWS, seed=0))))
    return Task(
        name=name,
        family=name.split("-")[0],
        sentence=sentence,
        distributions=rows.space,
        suggest=suggest_all(rows.space),
        value=value,
        best=float(np.nanmin(rows.values)),
        middle=middle,
        default=default,
        may_be_nan=failure is not None and math.isnan(failure),
        listed=rows.configurations,
    )
