"""The best so far, states and gains."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import optuna
from optuna.trial import TrialState
import pytest

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.insight import examine
from optuna_llmbo.insight.best_so_far import best_so_far_of
from optuna_llmbo.insight.objective import Objective
from optuna_llmbo.study.outcome import Outcome
from optuna_llmbo.study.trial_facts import trial_facts
from optuna_llmbo.study.trial_facts import TrialFacts
from tests.insight.studies import add
from tests.insight.studies import PLANE


def tried(*values: float | None, state: Outcome = "complete") -> list[TrialFacts]:
    rows = []
    for i, value in enumerate(values):
        trial = optuna.create_trial(state=TrialState.COMPLETE, value=0.0)
        trial.number, trial.values = i, [value]
        rows.append(dataclasses.replace(trial_facts(trial), outcome=state))
    return rows


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_best_and_the_gain(sign: float) -> None:
    values = [sign * value for value in (1.0, 3.0, 2.0, 3.0, 5.0)]
    progress = best_so_far_of(tried(*values), Objective("y", sign), default=2)
    assert progress is not None and progress.default is not None
    assert [t.number for t in progress.best] == [0, 1, 4]
    assert progress.default.number == 2 and progress.gain == 3.0


def test_a_default_that_is_the_best_gains_nothing() -> None:
    progress = best_so_far_of(tried(1.0, 2.0), Objective("y", -1.0), default=0)
    assert progress is not None and progress.gain == 0.0


def test_what_is_not_finite_is_never_the_best() -> None:
    progress = best_so_far_of(tried(-math.inf, 2.0, math.inf), Objective("y", -1.0), default=0)
    assert progress is not None
    assert [t.number for t in progress.best] == [1] and progress.n_not_finite == 2
    assert progress.default is None and progress.gain is None
    assert best_so_far_of(tried(math.inf, math.nan), Objective("y", -1.0), None) is None


def test_states() -> None:
    """Constraints, marks and Optuna's states, each trial in one of them."""
    study = optuna.create_study(direction="minimize")
    here: dict[str, Any] = {"x": 0.5, "y": 0.5}
    add(study, here, PLANE, 3.0, user_attrs={"is_default": True})
    add(study, here, PLANE, 1.0, system_attrs={"constraints": (-1.0, 2.0)})
    add(study, here, PLANE, 2.0, system_attrs={"constraints": (-1.0, 0.0)})
    add(study, here, PLANE, None, TrialState.PRUNED, intermediate_values={3: 0.1})
    add(study, here, PLANE, None, TrialState.PRUNED, user_attrs={"infeasible": True})
    add(study, here, PLANE, None, TrialState.FAIL)
    add(study, here, PLANE, None, TrialState.FAIL, user_attrs={"interrupted": True})
    study.enqueue_trial(here)
    insight = examine(study, LLMBOSampler(seed=0))
    states = [trial.outcome for trial in insight.trials]
    assert states == [
        *("complete", "infeasible", "complete", "pruned"),
        *("infeasible", "failed", "interrupted"),
    ]
    assert insight.trials[3].value == 0.1
    progress = insight.best_so_far
    assert progress is not None
    assert progress.best[-1].number == 2 and progress.gain == 1.0
    assert progress.counts["infeasible"] == 2


def test_names_and_directions() -> None:
    study = optuna.create_study(direction="maximize")
    insight = examine(study, LLMBOSampler(seed=0))
    assert insight.objective == Objective("objective value", 1.0)
    assert insight.best_so_far is None and "best so far" in insight.reasons[0]
    study.set_metric_names(["accuracy"])
    assert examine(study, LLMBOSampler(seed=0)).objective == Objective("accuracy", 1.0)
