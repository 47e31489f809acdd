from __future__ import annotations

import math

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from optuna_llmbo.history import History
from optuna_llmbo.history import read_history
from optuna_llmbo.space import SearchSpace


X = FloatDistribution(0.0, 1.0)
SPACE = SearchSpace({"x": X})
MINIMIZE = StudyDirection.MINIMIZE


def history(trials: list[FrozenTrial], direction: StudyDirection = MINIMIZE) -> History:
    study = optuna.create_study()
    study.add_trials(trials)
    return read_history(study.trials, direction, SPACE, current=len(trials))


def trial(x: float, state: TrialState = TrialState.COMPLETE, **kwargs: object) -> FrozenTrial:
    return create_trial(state=state, params={"x": x}, distributions={"x": X}, **kwargs)  # type: ignore[arg-type]


def test_targets_are_maximized() -> None:
    trials = [trial(0.1, value=3.0), trial(0.2, value=math.inf)]
    np.testing.assert_array_equal(history(trials).targets, [-3.0, -math.inf])
    maximized = history(trials, StudyDirection.MAXIMIZE)
    np.testing.assert_array_equal(maximized.targets, [3.0, math.inf])


def test_states() -> None:
    trials = [
        trial(0.1, value=1.0),
        trial(0.2, TrialState.FAIL),
        trial(0.3, TrialState.FAIL, user_attrs={"interrupted": True}),
        trial(0.4, TrialState.RUNNING),
        trial(0.5, TrialState.PRUNED),
        trial(0.6, TrialState.PRUNED, intermediate_values={1: math.nan}),
        create_trial(params={}, distributions={}, value=0.0),
    ]
    got = history(trials)
    assert got.configurations == ({"x": 0.1},)
    assert got.infeasible == ({"x": 0.2}, {"x": 0.5}, {"x": 0.6})
    assert got.pending == ({"x": 0.4},)
    assert got.seen == {(0.1,), (0.2,), (0.3,), (0.4,), (0.5,), (0.6,)}


def test_current_trial_is_left_out() -> None:
    study = optuna.create_study()
    study.ask({"x": X})
    got = read_history(study.trials, MINIMIZE, SPACE, current=0)
    assert got.pending == () and got.seen == frozenset()


def test_pruned_curves_go_on_as_complete_ones_did() -> None:
    complete = [
        trial(0.1, value=1.0, intermediate_values={50: 2.0, 100: 1.0}),
        trial(0.2, value=1.5, intermediate_values={50: 1.7, 100: 1.5}),
        trial(0.3, value=2.0, intermediate_values={50: 2.5, 100: 2.0}),
    ]
    pruned = trial(0.4, TrialState.PRUNED, intermediate_values={25: 9.0, 50: 4.0})
    alone = trial(0.5, TrialState.PRUNED, intermediate_values={30: 4.0})
    got = history([*complete, pruned, alone])
    # the median of (1 - 2, 1.5 - 1.7, 2 - 2.5) is -0.5; nobody else reported at 30
    assert got.targets.tolist() == pytest.approx([-1.0, -1.5, -2.0, -3.5, -4.0])


def test_constraints_by_name() -> None:
    study = optuna.create_study()
    for x, constraint in ((0.1, 2.0), (0.2, None)):
        asked = study.ask({"x": X})
        if constraint is not None:
            asked.set_constraint("memory", constraint)
        study.tell(asked, x)
    got = read_history(study.trials, MINIMIZE, SPACE, current=2)
    np.testing.assert_array_equal(got.constraints["memory"], [2.0, math.nan])
