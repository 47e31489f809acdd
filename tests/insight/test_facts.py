"""What a study says of itself, without a model."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from optuna_llmbo.insight.facts import study_facts
from optuna_llmbo.study.trial_attributes import CONTEXT
from tests import lora_like


def trial(
    value: float | None = None, state: TrialState = TrialState.COMPLETE, **attributes: Any
) -> FrozenTrial:
    distribution = FloatDistribution(1e-5, 1e-1, log=True)
    named = {name.replace("__", ":"): value for name, value in attributes.items()}
    return create_trial(
        state=state,
        value=value,
        params={"x": 1e-3},
        distributions={"x": distribution},
        user_attrs=named,
    )


def test_a_lora_study() -> None:
    found = study_facts(lora_like.make_study())
    assert found.objectives == (("value", "minimize"),)
    assert sum(found.counts.values()) == 15
    assert found.counts["infeasible"] == found.counts["failed"] == 1
    assert found.counts["pruned"] > 0
    (diverged,) = found.with_outcome("infeasible")
    assert (diverged.number, diverged.reason) == (lora_like.DIVERGED, lora_like.WHY_DIVERGED)
    (crashed,) = found.with_outcome("failed")
    assert crashed.reason == "RuntimeError: device lost <b>"
    assert found.default is not None and found.default.number == 0
    assert found.gain == pytest.approx(found.default.values[0] - found.best[0].values[0])
    assert found.ranges["learning_rate"] == "1e-5 to 0.01, log scale"
    assert found.ranges["rank"] == "4 | 8 | 16 | 32"
    pruned = found.with_outcome("pruned")[0]
    assert pruned.reason == "by the pruner at 33%"
    assert pruned.values == (pruned.trial.intermediate_values[33],)


def test_the_context_that_an_objective_has_written() -> None:
    study = optuna.create_study()
    assert study_facts(study).context == {}
    context = {"method": "lora", "parameters": 7e9, "steps": 300}
    study.set_user_attr(CONTEXT, context)
    assert study_facts(study).context == context


def test_versions_are_exact() -> None:
    found = study_facts(optuna.create_study()).versions
    assert found["optuna"] == importlib.metadata.version("optuna")
    assert list(found) == [
        "python",
        "optuna-llmbo",
        "optuna",
        "torch",
        "transformers",
        "peft",
        "gpytorch",
        "botorch",
    ]


def test_an_empty_study() -> None:
    found = study_facts(optuna.create_study())
    assert (found.trials, found.best, found.default, found.gain) == ((), (), None, None)
    assert found.counts == {"complete": 0, "pruned": 0, "infeasible": 0, "failed": 0}


def test_gain_where_larger_is_better() -> None:
    study = optuna.create_study(direction="maximize")
    study.add_trials([trial(0.5, is_default=True), trial(0.75)])
    assert study_facts(study).gain == pytest.approx(0.25)


def test_surprises_are_far_from_what_was_expected() -> None:
    study = optuna.create_study()
    near = trial(1.29, llmbo__mean=1.0, llmbo__deviation=0.1)
    far = trial(1.31, llmbo__mean=1.0, llmbo__deviation=0.1)
    study.add_trials([near, far, trial(9.0)])
    assert [facts.number for facts in study_facts(study).surprises] == [1]


@pytest.mark.parametrize("mean", [None, "?", [1.0, 2.0], float("nan")])
def test_what_was_expected_may_be_missing_or_damaged(mean: object) -> None:
    study = optuna.create_study()
    study.add_trial(trial(1.0, llmbo__mean=mean, llmbo__deviation=0.1))
    (facts,) = study_facts(study).trials
    assert facts.expected == () and facts.surprise == 0


def test_violated_constraints_make_a_trial_infeasible_and_never_the_best() -> None:
    study = optuna.create_study()

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        trial.set_constraint("memory", 0.5 if trial.number == 0 else -0.5)
        return trial.number + x

    study.optimize(objective, n_trials=2)
    found = study_facts(study)
    assert [facts.outcome for facts in found.trials] == ["infeasible", "complete"]
    assert "memory is 0.5" in found.trials[0].reason
    assert [facts.number for facts in found.best] == [1]


def test_an_interrupted_trial_has_not_failed() -> None:
    study = optuna.create_study()
    study.add_trial(trial(state=TrialState.FAIL, interrupted=True))
    assert study_facts(study).trials[0].outcome == "interrupted"
