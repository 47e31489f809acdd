from __future__ import annotations

from collections.abc import Mapping
import pickle
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import TrialState
import pytest

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.errors import InputError
from optuna_llmbo.space.descriptions import Descriptions
from optuna_llmbo.space.descriptions import read_descriptions


MIXED = CategoricalDistribution((True, 1, "lion", None, 0.5))


@pytest.mark.parametrize("given", [None, {}])
def test_nothing_is_described(given: Mapping[str, Any] | None) -> None:
    descriptions = read_descriptions(given)
    assert descriptions == Descriptions()
    assert descriptions.names == ()
    assert descriptions.find("optimizer", "lion") is None
    descriptions.check("optimizer", MIXED)


def test_descriptions_are_on_one_line() -> None:
    descriptions = read_descriptions({"optimizer": {"lion": "  Lion: sign of\n the momentum "}})
    assert descriptions.find("optimizer", "lion") == "Lion: sign of the momentum"
    assert descriptions.names == ("optimizer",)
    assert pickle.loads(pickle.dumps(descriptions)) == descriptions


@pytest.mark.parametrize("choice", [True, 1, 0.5, None, "lion", float("nan")])
def test_choices_are_told_apart_by_type_and_value(choice: Any) -> None:
    descriptions = read_descriptions({"x": {choice: "Described: yes"}})
    for other in (True, 1, 1.0, 0.5, None, "None", "lion", "Lion", float("nan")):
        same = type(other) is type(choice) and repr(other) == repr(choice)
        assert descriptions.find("x", other) == ("Described: yes" if same else None)
    assert descriptions.find("y", choice) is None


def test_scalars_of_numpy_are_values() -> None:
    descriptions = read_descriptions({"x": {np.bool_(True): "On: it runs"}})
    assert descriptions.find("x", True) == "On: it runs"
    descriptions.check("x", CategoricalDistribution((True, False)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("lion", r"describe must be a dict from parameter names .*; got 'lion'"),
        ([("optimizer", {})], "describe must be a dict from parameter names"),
        ({3: {"lion": "Lion: fast"}}, "names of parameters as keys, .*; got 3"),
        (
            {"optimizer": "Lion: fast"},
            r"describe\['optimizer'\] must be a dict .*got 'Lion: fast'",
        ),
        ({"optimizer": {}}, r"describe\['optimizer'\] must be a dict .* one or more choices"),
        ({"optimizer": {"lion": ""}}, r"describe\['optimizer'\]\['lion'\] must be a text"),
        ({"optimizer": {"lion": " \n"}}, r"must be a text that is not empty; got ' \\n'"),
        ({"optimizer": {None: None}}, r"describe\['optimizer'\]\[None\] .* Leave the choice out"),
    ],
)
def test_not_descriptions(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_descriptions(given)
    with pytest.raises(InputError, match=message):
        LLMBOSampler(describe=given)


@pytest.mark.parametrize("choice", [True, 1, "lion", None, 0.5, np.int64(1)])
def test_choices_that_are_there(choice: Any) -> None:
    read_descriptions({"x": {choice: "Described: yes"}}).check("x", MIXED)


@pytest.mark.parametrize(
    ("choice", "hint"),
    [
        ("lionn", "has 'lionn', which is none of the parameter's choices. Did you mean 'lion'?"),
        ("True", "has 'True', which is none of the parameter's choices. Did you mean True?"),
        (1.0, "has 1.0, which is none of the parameter's choices. Known are: True, 1, 'lion'"),
        (False, "Known are: True, 1, 'lion', None, 0.5."),
    ],
)
def test_choices_that_are_not_there(choice: Any, hint: str) -> None:
    descriptions = read_descriptions({"x": {"lion": "Lion: fast", choice: "Described: yes"}})
    descriptions.check("y", MIXED)
    with pytest.raises(InputError) as raised:
        descriptions.check("x", MIXED)
    assert hint in str(raised.value)


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (FloatDistribution(1e-5, 0.01, log=True), "a number from 1e-05 to 0.01"),
        (IntDistribution(1, 8), "an integer from 1 to 8"),
        (CategoricalDistribution((1, 2, 4)), "one of 1, 2, 4"),
    ],
)
def test_numbers_cannot_be_described(distribution: BaseDistribution, values: str) -> None:
    with pytest.raises(InputError) as raised:
        read_descriptions({"x": {1: "One: the least"}}).check("x", distribution)
    assert str(raised.value) == (
        f"describe['x']: the parameter is {values}; only choices that are not numbers can be "
        "described. Remove it."
    )


# --- in a study


def objective(trial: optuna.Trial) -> float:
    rate = trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)
    return rate + len(trial.suggest_categorical("optimizer", ["adamw", "lion"]))


@pytest.mark.parametrize(
    ("describe", "message"),
    [
        ({"optimizer": {"lionn": "Lion: fast"}}, "Did you mean 'lion'?"),
        ({"learning_rate": {1e-3: "One in a thousand"}}, "only choices that are not numbers can"),
    ],
)
def test_the_first_trial_finds_a_mistake(describe: dict[str, Any], message: str) -> None:
    study = optuna.create_study(sampler=LLMBOSampler(seed=0, describe=describe))
    with pytest.raises(InputError) as raised:
        study.optimize(objective, n_trials=3)
    assert message in str(raised.value)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL]


def test_a_resumed_study_finds_a_mistake_at_once() -> None:
    study = optuna.create_study(sampler=LLMBOSampler(seed=0))
    study.optimize(objective, n_trials=2)
    study.sampler = LLMBOSampler(seed=0, describe={"optimizer": {"sgd": "SGD: plain"}})
    with pytest.raises(InputError, match=r"describe\['optimizer'\] has 'sgd'"):
        study.ask().suggest_float("learning_rate", 1e-5, 1e-2, log=True)


def test_what_is_described_is_tried_as_it_is() -> None:
    describe = {"optimizer": {"lion": "Lion: sign of the momentum"}}
    studies = []
    for described in (None, describe):
        study = optuna.create_study(sampler=LLMBOSampler(seed=0, describe=described))
        study.optimize(objective, n_trials=4)
        studies.append([trial.params for trial in study.trials])
    assert studies[0] == studies[1]
