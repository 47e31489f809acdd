"""Studies with known answers, made of finished trials."""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import create_trial
from optuna.trial import TrialState

from optuna_llmbo.space.search_space import SearchSpace


LORA: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(1e-5, 1e-2, log=True),
    "rank": IntDistribution(1, 64, log=True),
    "alpha": IntDistribution(1, 128, log=True),
    "dropout": FloatDistribution(0.0, 0.3),
    "scheduler": CategoricalDistribution(["linear", "cosine", "constant"]),
}
PLANE: dict[str, BaseDistribution] = {
    "x": FloatDistribution(0.0, 1.0),
    "y": FloatDistribution(0.0, 1.0),
}


def loss(params: dict[str, Any]) -> float:
    """Of LoRA's parameters: all that counts is a quantity that knowledge derives."""
    scale = math.log10(params["learning_rate"] * params["alpha"] / params["rank"])
    return 1.0 + 0.3 * (scale + 3.2) ** 2


def bowl(params: dict[str, Any]) -> float:
    return (params["x"] - 0.3) ** 2 + 0.1 * params["y"]


def study_of(
    distributions: dict[str, BaseDistribution],
    value: Callable[[dict[str, Any]], float],
    n: int,
    direction: str = "minimize",
) -> optuna.Study:
    """A study of n random configurations, all complete."""
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.RandomSampler(0))  # type: ignore[arg-type]
    points = np.random.default_rng(0).random((n, len(distributions)))
    for params in SearchSpace(distributions).from_unit(points):
        add(study, dict(params), distributions, value(dict(params)))
    return study


def add(
    study: optuna.Study,
    params: dict[str, Any],
    distributions: dict[str, BaseDistribution],
    value: float | None,
    state: TrialState = TrialState.COMPLETE,
    **more: Any,
) -> None:
    """One more trial."""
    own = {name: distributions[name] for name in params}
    study.add_trial(
        create_trial(state=state, value=value, params=params, distributions=own, **more)
    )


def study_of_trust(*told: float) -> optuna.Study:
    """A study of `bowl`: three trials at random, then one for each trust that a model told."""
    study = study_of(PLANE, bowl, 3)
    for i, trust in enumerate(told):
        params = {"x": 0.4, "y": 0.1 * i}
        add(study, params, PLANE, bowl(params), user_attrs={"llmbo:trust": trust})
    return study
