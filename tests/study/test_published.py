"""What a running trial publishes, and what others make of it."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.study import compat
from optuna_llmbo.study import published


SPACE: dict[str, BaseDistribution] = {
    "c": CategoricalDistribution((None, True, "x", 2)),
    "n": IntDistribution(1, 9),
    "rate": FloatDistribution(1e-4, 1.0, log=True),
}
CONFIGURATION = {"c": None, "n": 3, "rate": 0.012345678901234567}


def frozen(study: optuna.Study, number: int = 0) -> FrozenTrial:
    return study.trials[number]


@pytest.fixture
def running() -> optuna.Study:
    study = optuna.create_study()
    study.ask()
    return study


def test_what_is_published_is_read(running: optuna.Study) -> None:
    assert published.read(frozen(running), SPACE) == {}
    published.publish(running, frozen(running), CONFIGURATION, SPACE)
    assert published.read(frozen(running), SPACE) == CONFIGURATION
    assert published.read(frozen(running), {"n": SPACE["n"]}) == {"n": 3}


def test_long_plans_are_cut_and_shorter_ones_replace_them(running: optuna.Study) -> None:
    many = {f"a-rather-long-name-{i}": FloatDistribution(0, 1) for i in range(300)}
    published.publish(running, frozen(running), dict.fromkeys(many, 0.123456789), many)
    attributes = frozen(running).system_attrs
    assert len(attributes) > 4 and max(map(len, attributes.values())) <= 2045
    assert published.read(frozen(running), many) == dict.fromkeys(many, 0.123456789)
    published.publish(running, frozen(running), CONFIGURATION, SPACE)
    assert published.read(frozen(running), SPACE) == CONFIGURATION
    published.forget(running, frozen(running))
    assert published.read(frozen(running), SPACE) == {}


def test_a_plan_counts_as_long_as_the_trial_keeps_to_it(running: optuna.Study) -> None:
    def intended(params: dict[str, Any]) -> dict[str, Any]:
        trial = frozen(running)
        trial.params = params
        return published.intended(trial, SPACE)

    published.publish(running, frozen(running), CONFIGURATION, SPACE)
    assert intended({"n": 3}) == CONFIGURATION
    assert intended({"n": 3, "other": 1}) == {**CONFIGURATION, "other": 1}
    assert intended({"n": 4}) == {"n": 4}
    running.tell(0, 1.0)
    assert published.intended(frozen(running), SPACE) == {}


@pytest.mark.long
def test_the_next_worker_stays_away_from_what_is_only_planned() -> None:
    def ask() -> optuna.Trial:
        return study.ask()

    def suggest(trial: optuna.Trial) -> tuple[float, float]:
        return trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)

    study = optuna.create_study(sampler=LLMBOSampler(seed=0))
    study.optimize(lambda trial: sum((v - 0.4) ** 2 for v in suggest(trial)), n_trials=12)
    first, second = ask(), ask()
    x = first.suggest_float("x", 0, 1)  # y is not suggested yet
    other = suggest(second)
    assert max(abs(x - other[0]), abs(first.suggest_float("y", 0, 1) - other[1])) > 0.02
    again = [suggest(ask()) for _ in range(6)]
    assert len({*again, other}) == 7


@pytest.mark.parametrize("started", [True, False])
@pytest.mark.parametrize("begun", ["earlier", "later"])
@pytest.mark.parametrize("finishes", [False, True])
def test_two_workers_that_choose_at_the_same_moment(
    monkeypatch: pytest.MonkeyPatch, started: bool, begun: str, finishes: bool
) -> None:
    """The other one publishes the same while this one chooses: this one chooses anew."""
    space = {name: IntDistribution(0, 3) for name in "ab"}
    study = optuna.create_study(sampler=LLMBOSampler(seed=0, n_startup_trials=4))
    for i in range(6 if started else 1):
        study.tell(study.ask(space), float(i))  # type: ignore[arg-type]
    two = [study.ask(), study.ask()]
    other, own = two if begun == "earlier" else reversed(two)
    publish = published.publish
    told: list[dict[str, Any]] = []

    def publish_both(study: optuna.Study, trial: FrozenTrial, *rest: Any) -> None:
        if not told:
            publish(study, frozen(study, other.number), *rest)
        told.append(dict(rest[0]))
        if finishes and len(told) == 1:
            for name, value in told[0].items():
                study._storage.set_trial_param(other._trial_id, name, value, space[name])
            study.tell(other, 1.0)
        publish(study, trial, *rest)

    monkeypatch.setattr(published, "publish", publish_both)
    values = {name: own.suggest_int(name, 0, 3) for name in "ab"}
    assert len(told) == 2 and told[0] != told[1] == values


def test_what_was_known_to_be_tried_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A space that is exhausted is no reason to choose anew."""
    study = optuna.create_study(sampler=LLMBOSampler(seed=0, n_startup_trials=2))
    space = {"a": IntDistribution(0, 2)}
    for i in range(3):
        study.tell(study.ask(space), float(i))  # type: ignore[arg-type]
    study.ask(space)  # type: ignore[arg-type]
    told = []
    publish = published.publish
    monkeypatch.setattr(published, "publish", lambda *args: told.append(args) or publish(*args))  # type: ignore[func-returns-value]
    study.ask(space)  # type: ignore[arg-type]
    assert len(told) == 1


def test_a_retried_trial_is_chosen_as_any_other() -> None:
    def objective(trial: optuna.Trial) -> float:
        return (trial.suggest_float("x", 0, 1) - 0.3) ** 2

    study = optuna.create_study(sampler=LLMBOSampler(seed=0))
    study.optimize(objective, n_trials=8)
    dying = study.ask()
    dying.suggest_float("x", 0, 1)
    died = study.tell(dying, state=TrialState.FAIL)
    assert died.user_attrs["llmbo:path"] == "model" and "llmbo:plan:0" in died.system_attrs
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING, user_attrs=died.user_attrs, system_attrs=died.system_attrs
        )
    )
    retry = study.ask()
    cleared = study.trials[retry.number]
    assert set(cleared.user_attrs.values()) == {None}
    assert compat.system_text(cleared, "llmbo:plan:") == ""
    retry.suggest_float("x", 0, 1)
    chosen = study.trials[retry.number]
    assert chosen.user_attrs["llmbo:path"] == "model"
    assert published.read(chosen, {"x": FloatDistribution(0, 1)}) == chosen.params
