"""Conditional and changing search spaces, chosen by the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import PartialFixedSampler
import pytest

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.suggestion.turn import Turn


pytestmark = pytest.mark.usefixtures("small_pool")


def paths(study: optuna.Study) -> list[str]:
    return [trial.user_attrs["llmbo:path"] for trial in study.trials]


def three_ways(trial: optuna.Trial) -> float:
    kind = trial.suggest_categorical("kind", ["linear", "tree", "net"])
    if kind == "linear":
        return (trial.suggest_float("ridge", 1e-4, 1.0, log=True) - 0.01) ** 2 + 0.5
    if kind == "tree":
        depth = trial.suggest_int("depth", 1, 20)
        return (depth - 7) ** 2 / 100 + (trial.suggest_float("share", 0, 1) - 0.3) ** 2
    return (trial.suggest_float("width", -5, 5) - 1) ** 2 / 10 + 0.3


@pytest.mark.long
@pytest.mark.parametrize("kernel", ["numeric", "sum"])
def test_the_model_chooses_within_a_branch(kernel: Any, tiny_llm: Path) -> None:
    sampler = LLMBOSampler(llm=tiny_llm, kernel=kernel, n_candidates=12, seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(three_ways, n_trials=22)
    assert study.best_params["kind"] == "tree" and study.best_params["depth"] == 7
    assert study.best_value < 5e-3  # a random 'share' is so near in one of seven
    assert set(paths(study)[6:]) == {"model"}


@pytest.mark.long
def test_a_branch_costs_one_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = []
    settle = Turn._settle
    monkeypatch.setattr(
        Turn,
        "_settle",
        lambda *args: fits.append(args[0].trial.number) or settle(*args),  # type: ignore[func-returns-value]
    )
    study = optuna.create_study(sampler=LLMBOSampler(seed=0))
    study.optimize(three_ways, n_trials=25)
    assert fits[-8:] == list(range(17, 25))


def test_a_branch_that_was_never_taken_is_no_obstacle() -> None:
    def objective(trial: optuna.Trial) -> float:
        if trial.number < 8:
            return trial.suggest_categorical("c", ["a", "b"]) == "a"
        if trial.suggest_categorical("c", ["a", "b"]) == "b":
            return trial.suggest_float("new", 0, 1) - 1
        return 1.0

    study = optuna.create_study(sampler=LLMBOSampler(seed=0))
    study.optimize(objective, n_trials=16)
    assert study.best_value < -0.9


def test_a_branch_begins_with_what_is_advised() -> None:
    study = optuna.create_study(sampler=LLMBOSampler(seed=0))
    study.optimize(three_ways, n_trials=5)
    first: dict[str, Any] = {}
    for trial in study.trials:
        first = trial.params | first
    del first["kind"]
    assert first == pytest.approx({"ridge": 1e-2, "depth": 11, "share": 0.5, "width": 0.0})


def test_a_branch_that_another_worker_has_begun_is_not_begun_again() -> None:
    sampler = LLMBOSampler(seed=0)
    study = optuna.create_study(sampler=sampler)
    study.add_trial(
        optuna.create_trial(
            params={"c": "a"},
            distributions={"c": optuna.distributions.CategoricalDistribution(["a", "b"])},
            value=0.0,
        )
    )
    found = []
    for _ in range(2):  # neither has ended when the other asks
        trial = study.ask()
        assert trial.suggest_categorical("c", ["a", "b"])
        found.append(trial.suggest_float("new", 0, 1))
    assert found[0] == 0.5 != found[1]


@pytest.mark.long
def test_a_range_that_depends_on_another_parameter() -> None:
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0.2, 1)
        y = trial.suggest_float("y", 0, x)
        assert 0 <= y <= x
        return (x - 0.6) ** 2 + (y - 0.5) ** 2

    study = optuna.create_study(sampler=LLMBOSampler(seed=0))
    study.optimize(objective, n_trials=25)
    assert study.best_value < 1e-3
    assert set(paths(study)[6:]) == {"model"}


@pytest.mark.long
def test_a_range_that_has_moved_away() -> None:
    def objective(trial: optuna.Trial) -> float:
        low = 0 if trial.number < 10 else 20
        x = trial.suggest_float("x", low, low + 10)
        return (x - 23) ** 2 + trial.suggest_int("n", 1, 4)

    study = optuna.create_study(sampler=LLMBOSampler(seed=0))
    study.optimize(objective, n_trials=25)
    assert abs(study.best_params["x"] - 23) < 0.3 and study.best_params["n"] == 1


def test_names_that_trials_do_not_share() -> None:
    """Nothing is shared by all: each branch has its own names only."""

    def objective(trial: optuna.Trial) -> float:
        if trial.number % 2:
            return (trial.suggest_float("a", 0, 1) - 0.3) ** 2
        return (trial.suggest_float("b", 0, 1) - 0.8) ** 2 + trial.suggest_float("c", 0, 1)

    study = optuna.create_study(sampler=LLMBOSampler(seed=0))
    study.optimize(objective, n_trials=24)
    best = {name: min(t.value for t in study.trials if name in t.params) for name in "ab"}  # type: ignore[type-var]
    assert best["a"] < 1e-4 and best["b"] < 0.02  # type: ignore[operator]


def test_enqueued_values_are_built_upon() -> None:
    def objective(trial: optuna.Trial) -> float:
        x, y = (trial.suggest_float(name, 0, 1) for name in "xy")
        return (x - y) ** 2  # the best y is the given x

    for x in (0.1, 0.5, 0.9):
        # Trials that are spread out: once the optimum is found there is nothing to improve on.
        study = optuna.create_study(sampler=LLMBOSampler(n_startup_trials=12, seed=0))
        study.optimize(objective, n_trials=12)
        study.enqueue_trial({"x": x})
        study.optimize(objective, n_trials=1)
        assert study.trials[-1].params["x"] == x
        assert study.trials[-1].params["y"] == pytest.approx(x, abs=0.3)


def test_a_parameter_that_is_fixed_by_another_sampler() -> None:
    def objective(trial: optuna.Trial) -> float:
        x, y = (trial.suggest_float(name, 0, 1) for name in "xy")
        return (x - y) ** 2

    study = optuna.create_study(sampler=LLMBOSampler(seed=0))
    study.optimize(objective, n_trials=12)
    study.sampler = PartialFixedSampler({"y": 0.75}, study.sampler)
    study.optimize(objective, n_trials=3)
    assert study.trials[-1].params["y"] == 0.75
    assert study.trials[-1].params["x"] == pytest.approx(0.75, abs=0.1)


@pytest.mark.long
def test_predictions_and_recommendations_know_branches() -> None:
    sampler = LLMBOSampler(seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(three_ways, n_trials=30)
    best = sampler.recommend(study)
    assert best.params["kind"] == "tree"
    good = sampler.predict(study, {"kind": "tree", "depth": 7, "share": 0.3})
    bad = sampler.predict(study, {"kind": "tree", "depth": 20, "share": 0.9})
    assert good.high < bad.mean


@pytest.mark.long
@pytest.mark.parametrize("prune", [False, True])
def test_reproducible_with_branches(prune: bool) -> None:
    def objective(trial: optuna.Trial) -> float:
        value = three_ways(trial)
        trial.report(value, 1)
        if prune and trial.number % 3 == 0:
            raise optuna.TrialPruned
        return value

    found = []
    for _ in range(2):
        study = optuna.create_study(sampler=LLMBOSampler(seed=3))
        study.optimize(objective, n_trials=7)
        # a new process knows no more than the storage
        study.sampler = LLMBOSampler(seed=3)
        study.optimize(objective, n_trials=5)
        found.append([trial.params for trial in study.trials])
    through = optuna.create_study(sampler=LLMBOSampler(seed=3))
    through.optimize(objective, n_trials=12)
    assert found[0] == found[1] == [trial.params for trial in through.trials]
