"""What is given in vain is said, once."""

from __future__ import annotations

from collections.abc import Mapping
import logging
import math
from typing import Any

import numpy as np
import optuna
import pytest

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.errors import InputError


pytestmark = pytest.mark.usefixtures("small_pool")


def tune(trial: optuna.Trial) -> float:
    rate = trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)
    rank = trial.suggest_int("rank", 4, 64, log=True)
    trial.suggest_categorical("optimizer", ["a", "b", "c"])
    trial.suggest_float("fixed", 1, 1)
    return abs(math.log10(rate) + 3) + rank / 100


def study_with(n_trials: int = 7, **options: Any) -> optuna.Study:
    study = optuna.create_study(sampler=LLMBOSampler(seed=0, n_startup_trials=3, **options))
    study.optimize(tune, n_trials=n_trials)
    return study


def source(name: str, objective: Any, n_trials: int = 3) -> optuna.Study:
    study = optuna.create_study(study_name=name, sampler=optuna.samplers.RandomSampler(seed=0))
    logging.disable(logging.WARNING)
    study.optimize(objective, n_trials=n_trials)
    logging.disable(logging.NOTSET)
    return study


def wide(trial: optuna.Trial) -> float:
    trial.suggest_float("learning_rate", 1e-7, 1, log=True)
    trial.suggest_int("rank", 4, 64)
    trial.suggest_categorical("optimizer", ["a", "b", "c"])
    return 1.0


def pack(**tables: Any) -> dict[str, Any]:
    return {"pack": {"name": "mine", "summary": "Known."}, **tables}


OWN = {
    "hyperparameters": {"rank": {"description": "r"}, "optimizer": {"description": "o"}},
    "derived": {"nothing": {"expression": "rank - rank", "description": "zero"}},
    "recommended": [
        {"name": "one", "source": "s", "values": {"rank": 1000, "optimizer": "z"}},
        {"name": "two", "source": "s", "values": {"rank": 8, "optimizer": "a"}},
    ],
}
CHOICES = {"description": "o", "choices": [{"names": ["z"], "description": "Z: the last."}]}
IN_VAIN: dict[str, tuple[dict[str, Any], list[str]]] = {
    "misspelt": (
        {"prior": {"learnin_rate": (1e-4, 1e-3)}},
        ["no trial has had a parameter of this name so far. Did you mean 'learning_rate'?"],
    ),
    "unlike any": (
        {"prior": {"width": (1, 2)}},
        ["Known are: fixed, learning_rate, optimizer, rank."],
    ),
    "outside": (
        {"prior": {"learning_rate": (1, 2)}},
        ["it lies outside of the range: a number from 1e-05 to 0.01."],
    ),
    "partly outside": (
        {"prior": {"rank": (np.int64(2), np.float32(8))}},
        ["only its part inside the range counts: an integer from 4 to 64."],
    ),
    "without order": ({"prior": {"optimizer": (1, 2)}}, ["choices have no order"]),
    "without choice": ({"prior": {"fixed": (0, 2)}}, ["the parameter leaves no choice"]),
    "described, misspelt": (
        {"describe": {"optimiser": {"a": "A: the usual one"}}},
        ["describe['optimiser']: no trial has had a parameter of this name so far. Did you mean"],
    ),
    "choices that are not there": (
        {"knowledge": pack(hyperparameters={"optimizer": CHOICES, "rank": CHOICES})},
        [
            "'mine' describes choices of optimizer, none of which is there: the parameter is one",
            "'mine' describes choices of rank, none of which is there: the parameter is an",
        ],
    ),
    "context without packs": (
        {"context": {"method": "lora", "steps": 300}, "knowledge": None},
        ["context: method, steps says nothing, as no number of the knowledge packs that fit the"],
    ),
    "context of another kind": (
        {"context": {"method": "full", "steps": 300}},
        ["context: steps says nothing"],
    ),
    "foreign pack": (
        {"knowledge": pack(hyperparameters={"depth": {"description": "d"}})},
        ["'mine': it knows none of the study's parameters (learning_rate, optimizer, rank), only"],
    ),
    "own pack": (
        {"knowledge": pack(**OWN)},
        [
            "recommends optimizer = 'z', which is not one of 'a', 'b', 'c': the middle",
            "recommends rank = 1000, which is not an integer from 4 to 64: 64 is tried instead",
            "derives 'nothing', which is left out: it is constant",
        ],
    ),
}
HEEDED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "prior": {"prior": {"rank": (8, 16), "learning_rate": (1e-4, 1e-3)}},
    "described": {"describe": {"optimizer": {"a": "A: the usual one"}}},
    "choices": {
        "knowledge": pack(
            hyperparameters={
                "optimizer": {
                    "description": "o",
                    "choices": [{"names": ["A", "z"], "description": "A: the usual one."}],
                }
            }
        )
    },
    "context": {"context": {"parameters": 7e9, "steps": 300}},
    "summary": {"knowledge": pack()},
    "pack": {"knowledge": pack(hyperparameters=OWN["hyperparameters"])},
}


@pytest.mark.parametrize(("options", "messages"), IN_VAIN.values(), ids=list(IN_VAIN))
def test_each_is_said_once(
    options: Mapping[str, Any], messages: list[str], warnings_logged: list[str]
) -> None:
    study = study_with(**options)
    assert len(warnings_logged) == len(messages)
    for message, said in zip(messages, warnings_logged, strict=True):
        assert message in said
    study.optimize(tune, n_trials=1)
    assert len(warnings_logged) == len(messages)


@pytest.mark.parametrize("options", HEEDED.values(), ids=list(HEEDED))
def test_what_is_heeded_is_not_mentioned(
    options: Mapping[str, Any], warnings_logged: list[str]
) -> None:
    study_with(5, **options)
    assert warnings_logged == []


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (lambda t: t.suggest_float("z", 0, 1), "has no parameter of this study (learning_rate"),
        (lambda t: t.suggest_float("rank", 4, 9), "its trials lack learning_rate, optimizer."),
        (lambda t: math.nan, "it has no complete trial"),
        (wide, "complete trials are used; the others have values outside"),
        (tune, None),
    ],
    ids=["foreign", "parts", "failed", "wider", "usable"],
)
def test_source_studies_that_do_not_teach(
    objective: Any, message: str | None, warnings_logged: list[str]
) -> None:
    other = source("other", objective, 5)
    study_with(5, source_studies=[other])
    if message is None:
        assert warnings_logged == []
    else:
        (said,) = warnings_logged
        assert said.startswith("the source study 'other': ") and message in said


def test_a_study_is_no_source_of_its_own(warnings_logged: list[str]) -> None:
    study = study_with(5)
    without = optuna.create_study(sampler=LLMBOSampler(seed=0))
    without.add_trials(study.trials)
    study.sampler = LLMBOSampler(seed=0, source_studies=[study])
    for one in (study, without):
        one.optimize(tune, n_trials=1)
    assert study.trials[-1].params == without.trials[-1].params
    assert warnings_logged == [
        f"the source study {study.study_name!r} is this study: it is left out."
    ]


def test_other_objectives_are_found_by_the_first_trial() -> None:
    two = optuna.create_study(directions=["minimize"] * 2, study_name="two")
    study = optuna.create_study(sampler=LLMBOSampler(source_studies=[two]))
    with pytest.raises(InputError, match="'two' has 2 objectives, this study 1"):
        study.ask().suggest_float("x", 0, 1)


def test_a_described_parameter_without_a_choice(warnings_logged: list[str]) -> None:
    def objective(trial: optuna.Trial) -> float:
        trial.suggest_categorical("activation", ["relu"])
        return tune(trial)

    describe = {"activation": {"relu": "ReLU: zero below zero"}}
    sampler = LLMBOSampler(seed=0, n_startup_trials=3, describe=describe)
    optuna.create_study(sampler=sampler).optimize(objective, n_trials=5)
    assert warnings_logged == [
        "describe['activation']: it says nothing, as the parameter leaves no choice."
    ]


def test_equal_values_are_mentioned(warnings_logged: list[str]) -> None:
    study = optuna.create_study(sampler=LLMBOSampler(seed=0, n_startup_trials=3))
    study.optimize(lambda trial: 0 * tune(trial) + 0.5, n_trials=5)
    (said,) = warnings_logged
    assert "all 3 values of the objective are equal so far" in said


def test_a_name_that_was_enqueued_and_not_suggested(warnings_logged: list[str]) -> None:
    study = optuna.create_study(sampler=LLMBOSampler(seed=0))
    study.enqueue_trial({"learning_rate": 1e-4})
    study.enqueue_trial({"learnin_rate": 1e-4, "rank": 8})
    study.optimize(tune, n_trials=2)
    (said,) = warnings_logged
    assert said.startswith("a trial was enqueued with 'learnin_rate'")
    assert said.endswith("Did you mean 'learning_rate'?")


@pytest.mark.parametrize(
    ("options", "unused"),
    [
        ({"layer": 3, "task": "Tuning."}, "layer, task"),
        ({"pooling": "mean", "device": "cpu"}, "pooling, device"),
    ],
)
def test_options_of_a_language_model_without_one(
    options: dict[str, Any], unused: str, warnings_logged: list[str]
) -> None:
    LLMBOSampler(llm=None, **options)
    (said,) = warnings_logged
    assert said.startswith(f"{unused}: not used, as there is no language model")
