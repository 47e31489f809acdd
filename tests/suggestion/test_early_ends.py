"""Trials that end before they have suggested all parameters teach as much as those that go on."""

from __future__ import annotations

import math

import numpy as np
import optuna
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
import pytest

from optuna_llmbo import LLMBOSampler


pytestmark = pytest.mark.usefixtures("small_pool")


class _Crash(Exception):
    """An error of an objective."""


def objective(how: str) -> optuna.study.study.ObjectiveFuncType:
    """Ends right after the first of two parameters where it is positive."""

    def end() -> float:
        if how == "pruned":
            raise optuna.TrialPruned
        if how == "raised":
            raise _Crash
        return math.nan

    def evaluate(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", -1, 1)
        if x > 0:
            return end()
        return 1 - x**2 - (trial.suggest_float("y", -1, 1) - 0.5) ** 2

    return evaluate


def ended_early(study: optuna.Study) -> list[bool]:
    return [trial.state != TrialState.COMPLETE for trial in study.trials]


def searched(how: str, sampler: LLMBOSampler, n_trials: int = 20) -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective(how), n_trials=n_trials, catch=_Crash)
    return study


@pytest.mark.long
@pytest.mark.parametrize("how", ["raised", "pruned"])
def test_regions_where_trials_end_early_are_avoided(how: str) -> None:
    """The best values lie at the border. When early ends taught nothing, all trials came to one;
    of those of random search half do."""
    study = searched(how, LLMBOSampler(seed=0))
    assert sum(ended_early(study)[-12:]) <= 7
    assert study.best_value > 0.99


@pytest.mark.long
def test_early_ends_of_another_sampler_teach_too() -> None:
    """Its trials have no plan that would say what they were going to suggest."""
    study = optuna.create_study(direction="maximize", sampler=RandomSampler(seed=1))
    study.optimize(objective("nan"), n_trials=14)
    study.sampler = LLMBOSampler(seed=0)
    study.optimize(objective("nan"), n_trials=8)
    assert sum(ended_early(study)[-8:]) <= 4


def test_advice_that_ends_early_is_not_tried_again() -> None:
    """The learning rate that the packs recommend first is too high."""

    def tune(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)
        if rate > 1e-4:
            return math.nan
        return rate * trial.suggest_int("lora_rank", 1, 64, log=True)

    study = optuna.create_study(sampler=LLMBOSampler(seed=0))
    study.optimize(tune, n_trials=6)
    rates = [trial.params["learning_rate"] for trial in study.trials]
    assert any(ended_early(study)[:3]) and len(set(rates)) == 6


def test_a_branch_that_always_ends_early_is_left_alone() -> None:
    """Neither "sgd" nor its momentum ever has a value."""

    def tune(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("rate", 0, 1)
        if trial.suggest_categorical("optimizer", ["adam", "sgd"]) == "sgd":
            return math.nan
        return -rate - trial.suggest_float("beta", 0, 1)

    study = optuna.create_study(sampler=LLMBOSampler(seed=0))
    study.optimize(tune, n_trials=22)
    assert sum(ended_early(study)[-6:]) <= 1


def test_when_all_trials_end_early_the_search_goes_on() -> None:
    study = optuna.create_study(sampler=LLMBOSampler(seed=0))

    def fail(trial: optuna.Trial) -> float:
        trial.suggest_float("x", 0, 1)
        return math.nan

    study.optimize(fail, n_trials=8)
    assert len({trial.params["x"] for trial in study.trials}) == 8


def test_an_end_that_nothing_explains_is_no_obstacle() -> None:
    """A third of the trials end early, whatever they suggested."""

    def flaky(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", -1, 1)
        if np.random.default_rng([trial.number, 1]).random() < 0.33:
            return math.nan
        return x**2 + (trial.suggest_float("y", -1, 1) - 0.5) ** 2

    study = optuna.create_study(sampler=LLMBOSampler(seed=0))
    study.optimize(flaky, n_trials=16)
    assert study.best_value < 0.1
