"""The context decides what the sampler takes from the packs."""

from __future__ import annotations

import math
from typing import Any

import optuna
from optuna.trial import TrialState
import pytest

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.errors import InputError
from optuna_llmbo.knowledge import Context
from optuna_llmbo.study.trial_attributes import CONTEXT
from optuna_llmbo.surrogate.ablation import Ablation


pytestmark = pytest.mark.usefixtures("small_pool")


def trainer(trial: optuna.Trial) -> float:
    rate = trial.suggest_float("learning_rate", 1e-7, 1e-2, log=True)
    epochs = trial.suggest_int("num_train_epochs", 1, 10)
    trial.suggest_int("per_device_train_batch_size", 4, 64, log=True)
    return abs(math.log10(rate) + 5) + epochs / 10


def study_with(n_trials: int, written: dict[str, Any] | None = None, **options: Any) -> Any:
    study = optuna.create_study(sampler=LLMBOSampler(seed=0, **options))
    if written is not None:
        study.set_user_attr(CONTEXT, written)
    study.optimize(trainer, n_trials=n_trials)
    return study


@pytest.mark.parametrize(
    ("context", "rate"),
    [({"method": "full"}, 2e-5), ({"method": "preference"}, 5e-7), ({"method": "lora"}, 2e-4)],
)
def test_first_trial(context: dict[str, Any], rate: float) -> None:
    told, written = study_with(1, context=context), study_with(1, written=context)
    assert told.trials[0].params["learning_rate"] == pytest.approx(rate)
    assert written.trials[0].params == told.trials[0].params


def test_the_names_alone_say_what_is_common() -> None:
    rates = [trial.params["learning_rate"] for trial in study_with(2).trials]
    assert rates[1] == pytest.approx(2e-5)


FROM_THE_PRIOR: dict[str, Any] = {
    "n_startup_trials": 20,
    "ablation": Ablation(prior_start=True),
}


def test_start_lies_where_the_context_expects_it() -> None:
    study = study_with(12, context={"method": "preference"}, **FROM_THE_PRIOR)
    rates = [trial.params["learning_rate"] for trial in study.trials]
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    assert sum(5e-7 <= rate <= 5e-6 for rate in rates) >= 6  # of 5 decades this is one
    wide = study_with(12, **FROM_THE_PRIOR)
    assert sum(5e-7 <= trial.params["learning_rate"] <= 5e-6 for trial in wide.trials) < 6


def test_what_the_sampler_is_told_goes_before_what_the_study_says() -> None:
    sampler = LLMBOSampler(context={"method": "preference"})
    study = optuna.create_study(sampler=sampler)
    study.set_user_attr(CONTEXT, {"method": "lora", "parameters": 7e9, "steps": 10})
    assert sampler._engine.knowledge(study).context == Context("preference", 7e9, 10)


def test_a_mistake_is_said_when_the_sampler_is_made() -> None:
    with pytest.raises(InputError, match="'size' is none of method, parameters, steps"):
        LLMBOSampler(context={"size": 7e9})
