"""The embedded model on the standard library's docstrings: what the demo runs, but smaller."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState
import pytest

from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import LoRAObjective


@pytest.mark.slow
def test_the_default_configuration_learns() -> None:
    try:
        resolve_source("embedded")
    except InputError:
        pytest.skip("the embedded model is not installed")
    objective = LoRAObjective(
        "embedded", "stdlib-docstrings", validation=8, proxy=0.015, max_length=96, reports=1
    )
    study = optuna.create_study(direction="minimize")
    study.enqueue_trial(objective.default_params)
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert trial.state is TrialState.COMPLETE
    assert trial.user_attrs["is_default"]
    assert 24 <= trial.user_attrs["examples"] <= 40
    assert 2.5 < objective.base_loss < 5.5  # nats; a uniform guess over the vocabulary is 10.8
    assert trial.user_attrs["gain_over_base"] > 0.05
