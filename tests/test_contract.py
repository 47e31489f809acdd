"""What Optuna asks of a sampler beyond its public suite."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from typing import Any

import optuna
from optuna.trial import FrozenTrial
import pytest

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.study.branches import MAX_PATTERNS


small = pytest.mark.usefixtures("small_pool")


def all_kinds(trial: optuna.Trial) -> float:
    """A parameter of every kind; the choices' order must not come from a set or a hash."""
    a = trial.suggest_float("a", 0, 9)
    b = trial.suggest_float("b", 1, 10, log=True)
    c = trial.suggest_float("c", 0, 10, step=2)
    d = trial.suggest_int("d", 0, 9)
    e = trial.suggest_int("e", 1, 100, log=True)
    f = trial.suggest_int("f", 0, 9, step=3)
    g = trial.suggest_categorical("g", range(1, 10))
    return a + b + c + d + e + f + g


def params_of(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials]


def study_of(seed: int, constant: bool = False, n: int = 12) -> optuna.Study:
    study = optuna.create_study(sampler=LLMBOSampler(seed=seed))
    study.optimize(lambda trial: all_kinds(trial) * (not constant), n_trials=n)
    return study


@pytest.mark.long
@small
@pytest.mark.parametrize("constant", [False, True])
def test_the_seed_decides(constant: bool) -> None:
    first, again, other = (params_of(study_of(seed, constant)) for seed in (1, 1, 2))
    assert first == again
    assert first[2:] != other[2:]  # the first two are advised


@pytest.mark.long
def test_reproducible_in_other_processes() -> None:
    """Whatever their hash seeds."""
    code = (
        "import json, optuna; optuna.logging.set_verbosity(optuna.logging.ERROR);"
        "from tests.test_contract import params_of, study_of;"
        "print(json.dumps(params_of(study_of(3, n=9))))"
    )
    other_seed = "1" if os.environ.get("PYTHONHASHSEED") == "0" else "0"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": other_seed, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == params_of(study_of(3, n=9))


@small
def test_without_a_seed_samplers_differ() -> None:
    studies = [optuna.create_study(sampler=LLMBOSampler()) for _ in range(2)]
    for study in studies:
        study.optimize(all_kinds, n_trials=5)
    assert params_of(studies[0])[2:] != params_of(studies[1])[2:]


@pytest.mark.long
@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0, -math.inf, math.inf])
def test_constraints_are_asked_for_once_a_trial(value: float) -> None:
    asked: list[int] = []

    def constraints(trial: FrozenTrial) -> tuple[float]:
        asked.append(trial.number)
        return (value,)

    sampler = LLMBOSampler(seed=0, n_startup_trials=2, constraints_func=constraints)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=5)
    assert asked == [0, 1, 2, 3, 4]
    assert [t.system_attrs["constraints"] for t in study.trials] == [(value,)] * 5


def test_a_constraint_that_is_nan_is_an_error() -> None:
    sampler = LLMBOSampler(seed=0, constraints_func=lambda trial: (math.nan,))
    study = optuna.create_study(sampler=sampler)
    with pytest.raises(ValueError, match="NaN"):
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    assert len(study.trials) == 1


@small
def test_values_that_are_infinite_or_huge() -> None:
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        return {3: math.inf, 4: -math.inf, 6: 1e300}.get(trial.number, (x - 0.3) ** 2)

    study = optuna.create_study(sampler=LLMBOSampler(seed=0))
    study.optimize(objective, n_trials=14)
    assert [t.user_attrs["llmbo:path"] for t in study.trials[6:]] == ["model"] * 8


@pytest.mark.long
@small
def test_more_patterns_of_parameters_than_are_told_apart() -> None:
    """An objective that makes up names as it goes."""

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        return x + trial.suggest_float(f"made-up-{trial.number % n}", 0, 1)

    n = MAX_PATTERNS + 1
    study = optuna.create_study(sampler=LLMBOSampler(seed=0))
    study.optimize(objective, n_trials=2 * n)
    assert study.best_value < 0.2


@small
def test_points_that_are_nearly_the_same() -> None:
    """After the search has converged the matrices are nearly singular."""
    study = optuna.create_study(sampler=LLMBOSampler(seed=0))
    for i in range(30):
        study.enqueue_trial({"x": 0.3 + 1e-9 * i})
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1) - 0.3) ** 2, n_trials=34)
    assert study.trials[-1].user_attrs["llmbo:path"] == "model"
