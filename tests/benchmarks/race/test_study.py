"""One study: what is recorded of it."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import optuna
from optuna.samplers import BaseSampler
import pytest

from benchmarks.race import methods
from benchmarks.race import study
from benchmarks.race import tasks
from benchmarks.race.study import Plan
from optuna_llmbo.errors import InputError


PLAN = Plan(task="bbob-sphere-2d", method="random", start="plain", seed=0, budget=5)


@pytest.mark.parametrize("method", ["random", "tpe"])
@pytest.mark.parametrize(
    "task", ["hpobench-kc1", "hpobench-kc1-grid", "lora-exact", "bbob-schaffers-2d", "conditional"]
)
def test_three_trials(task: str, method: str) -> None:
    record = study.run(Plan(task=task, method=method, start="plain", seed=0, budget=3))
    assert record["error"] is None and record["warnings"] == []
    assert len(record["values"]) == len(record["seconds"]) == 3
    assert tasks.load(task).value(record["best_params"]) == min(record["values"])


def test_the_seed_decides() -> None:
    values = study.run(PLAN)["values"]
    assert study.run(PLAN)["values"] == values
    assert study.run(dataclasses.replace(PLAN, seed=1))["values"] != values
    assert study.run(dataclasses.replace(PLAN, budget=3))["values"] == values[:3]


def test_the_default_comes_first() -> None:
    task = tasks.load(PLAN.task)
    record = study.run(dataclasses.replace(PLAN, start="default"))
    assert record["values"][0] == task.value(task.default)
    assert len(record["values"]) == 5


def test_the_time_of_the_objective_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    task = tasks.load(PLAN.task)
    now = [0.0]

    def slow(configuration: Any) -> float:
        now[0] += 100.0
        return task.value(configuration)

    def make(seed: int) -> BaseSampler:
        def sample(*_: Any) -> float:  # once a parameter
            now[0] += 1.5
            return 0.0

        sampler = optuna.samplers.RandomSampler(seed=seed)
        monkeypatch.setattr(sampler, "sample_independent", sample)
        return sampler

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(tasks, "load", lambda _: dataclasses.replace(task, value=slow))
    monkeypatch.setitem(methods.OPTUNA, "random", make)
    record = study.run(PLAN)
    assert record["seconds"] == [3.0] * 5
    assert record["total_seconds"] == 515.0


def test_a_failure_is_kept_with_the_trials_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(seed: int) -> BaseSampler:
        sampler = optuna.samplers.RandomSampler(seed=seed)
        sample = sampler.sample_independent

        def fail_later(study: Any, trial: Any, name: str, distribution: Any) -> Any:
            if trial.number == 2:
                raise ZeroDivisionError("no more")
            return sample(study, trial, name, distribution)

        monkeypatch.setattr(sampler, "sample_independent", fail_later)
        return sampler

    good = study.run(PLAN)
    monkeypatch.setitem(methods.OPTUNA, "random", make)
    record = study.run(PLAN)
    assert record["values"] == good["values"][:2]
    assert record["error"].endswith("ZeroDivisionError: no more\n")
    assert tasks.load(PLAN.task).value(record["best_params"]) == min(record["values"])


def test_a_failure_before_the_first_trial() -> None:
    record = study.run(dataclasses.replace(PLAN, method="simulated-annealing"))
    assert record["values"] == [] and record["best_params"] is None
    assert "unknown method 'simulated-annealing': expected one of random, tpe" in record["error"]


def test_a_value_that_is_no_number_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dataclasses.replace(tasks.load(PLAN.task), value=lambda _: float("nan"))
    monkeypatch.setattr(tasks, "load", lambda _: broken)
    assert "expected a finite value" in study.run(PLAN)["error"]


def test_warnings_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(seed: int) -> BaseSampler:
        optuna.logging.get_logger("optuna.somewhere").warning("worse than usual")
        return optuna.samplers.RandomSampler(seed=seed)

    monkeypatch.setitem(methods.OPTUNA, "random", make)
    assert study.run(PLAN)["warnings"] == ["worse than usual"]


@pytest.mark.parametrize("method", [*methods.OPTUNA, "ours-numeric", "numeric-no-knowledge"])
def test_methods_are_new_samplers(method: str) -> None:
    task = tasks.load(PLAN.task)
    samplers = [methods.make_sampler(method, task, seed=0) for _ in range(2)]
    assert samplers[0] is not samplers[1]
    assert all(isinstance(sampler, BaseSampler) for sampler in samplers)


def test_arguments_may_come_from_the_task() -> None:
    task = tasks.load(PLAN.task)
    got = methods._arguments(methods.OURS["ours-task"], task)
    assert got == {"kernel": "sum", "task": task.sentence}


def test_what_needs_a_fixed_space() -> None:
    assert not methods.can_search("hebo", "conditional")
    assert methods.can_search("hebo", "lora-10") and methods.can_search("tpe", "conditional")
    with pytest.raises(InputError, match="unknown method"):
        methods.check("hebo2")


def test_long_texts_are_not_repeated() -> None:
    kept = study.brief({"x": 1.5, "name": "adam", "prompt": "word " * 40})
    assert kept["x"] == 1.5 and kept["name"] == "adam"
    assert kept["prompt"].startswith("sha256 ") and len(kept["prompt"]) == 23
    assert kept == study.brief({"x": 1.5, "name": "adam", "prompt": "word " * 40})
