from __future__ import annotations

from datetime import timedelta
import math

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.study import published
from optuna_llmbo.study.history import History
from optuna_llmbo.study.history import read_history


X = FloatDistribution(0.0, 1.0)
SPACE = SearchSpace({"x": X})
MINIMIZE = StudyDirection.MINIMIZE


def history(trials: list[FrozenTrial], direction: StudyDirection = MINIMIZE) -> History:
    study = optuna.create_study()
    study.add_trials(trials)
    return read_history(study.trials, [direction], SPACE, current=len(trials))


def trial(x: float, state: TrialState = TrialState.COMPLETE, **kwargs: object) -> FrozenTrial:
    return create_trial(state=state, params={"x": x}, distributions={"x": X}, **kwargs)  # type: ignore[arg-type]


def test_targets_are_maximized() -> None:
    trials = [trial(0.1, value=3.0), trial(0.2, value=math.inf)]
    np.testing.assert_array_equal(history(trials).targets, [[-3.0], [-math.inf]])
    maximized = history(trials, StudyDirection.MAXIMIZE)
    np.testing.assert_array_equal(maximized.targets, [[3.0], [math.inf]])


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
    assert got.seen == {SPACE.key({"x": x}) for x in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)}


@pytest.mark.parametrize("state", [TrialState.FAIL, TrialState.PRUNED])
def test_a_trial_that_ended_early_failed_with_what_it_had(state: TrialState) -> None:
    """What it was going to suggest is not tried again; what it said is all that failed."""
    space = SearchSpace({"x": X, "y": X})
    planned, other = trial(0.1, state), trial(0.2, state)
    nothing = create_trial(state=state, params={}, distributions={})
    study = optuna.create_study()
    study.ask()
    published.publish(study, study.trials[0], {"x": 0.1, "y": 0.7}, space.distributions)
    planned.system_attrs.update(study.trials[0].system_attrs)
    trials = [planned, other, nothing]
    for number, one in enumerate(trials):
        one.number = number
    got = read_history(trials, [MINIMIZE], space, current=3)
    assert got.infeasible == ({"x": 0.1}, {"x": 0.2})
    assert got.seen == {space.key({"x": 0.1, "y": 0.7})} and got.n_observed == 0


def test_a_worker_that_died_says_nothing_of_the_configuration() -> None:
    """Its trial is tried again, under another number."""
    trials = [trial(0.1, TrialState.FAIL), trial(0.2, TrialState.FAIL), trial(0.1, value=1.0)]
    trials[2].system_attrs["retry_history"] = [0]
    got = history(trials)
    assert got.infeasible == ({"x": 0.2},) and got.configurations == ({"x": 0.1},)


def test_current_trial_is_left_out() -> None:
    study = optuna.create_study()
    study.ask({"x": X})
    got = read_history(study.trials, [MINIMIZE], SPACE, current=0)
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
    assert got.targets[:, 0].tolist() == pytest.approx([-1.0, -1.5, -2.0, -3.5, -4.0])


@pytest.mark.skipif(not hasattr(optuna.Trial, "set_constraint"), reason="Optuna before 5")
def test_constraints_by_name() -> None:
    study = optuna.create_study()
    for x, constraint in ((0.1, 2.0), (0.2, None)):
        asked = study.ask({"x": X})
        if constraint is not None:
            asked.set_constraint("memory", constraint)
        study.tell(asked, x)
    got = read_history(study.trials, [MINIMIZE], SPACE, current=2)
    np.testing.assert_array_equal(got.constraints["memory"], [2.0, math.nan])


def curve(x: float, steps: list[int], state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    """A trial that reported at some steps."""
    values = {step: 1.0 for step in steps}
    given = {"value": 1.0} if state == TrialState.COMPLETE else {}
    return trial(x, state, intermediate_values=values, **given)


@pytest.mark.parametrize(
    ("whole", "part", "gap"),
    [
        (range(0, 10), range(0, 5), 0.5),  # steps from 0
        (range(1, 11), range(1, 6), 0.5),  # steps from 1
        ([20, 40, 60, 80, 100], [20, 40], 0.6),  # percent
        (range(0, 10), [0], 0.9),
        (range(1, 11), range(1, 11), 0.0),  # pruned at the very end
    ],
    ids=str,
)
def test_gap_is_the_share_of_steps_not_made(whole: list[int], part: list[int], gap: float) -> None:
    got = history([curve(0.1, list(whole)), curve(0.2, list(part), TrialState.PRUNED)])
    assert got.gaps.tolist() == pytest.approx([0.0, gap])


def test_gap_is_of_the_longest_run() -> None:
    trials = [
        curve(0.1, [1, 2, 3]),  # complete is complete, be it short
        curve(0.2, list(range(1, 21))),
        trial(0.3, value=2.0),  # reports nothing
        curve(0.4, list(range(1, 6)), TrialState.PRUNED),
        curve(0.5, [], TrialState.PRUNED),  # no value: not observed
        curve(0.6, list(range(1, 11)), TrialState.PRUNED),
    ]
    got = history(trials)
    assert [c["x"] for c in got.configurations] == [0.1, 0.2, 0.3, 0.4, 0.6]
    assert got.gaps.tolist() == pytest.approx([0.0, 0.0, 0.0, 0.75, 0.5])


def test_gap_without_a_complete_trial_is_of_the_longest_pruned_one() -> None:
    trials = [curve(x, list(range(n)), TrialState.PRUNED) for x, n in ((0.1, 4), (0.2, 8))]
    assert history(trials).gaps.tolist() == pytest.approx([0.5, 0.0])


def test_gap_where_nothing_is_reported() -> None:
    assert history([trial(0.1, value=1.0), trial(0.2, value=2.0)]).gaps.tolist() == [0.0, 0.0]
    assert history([]).gaps.shape == (0,)


def test_one_trial_is_one_observation() -> None:
    """However often it reported."""
    trials = [curve(0.1, list(range(50))), curve(0.2, list(range(30)), TrialState.PRUNED)]
    got = history(trials)
    assert got.n_observed == 2
    assert {len(a) for a in (got.targets, got.gaps, got.seconds, got.configurations)} == {2}
    assert not got.infeasible and not got.pending


def test_seconds_of_complete_trials() -> None:
    trials = [
        trial(0.1, value=1.0),
        curve(0.2, [1], TrialState.PRUNED),  # how long the whole would have taken is not known
        trial(0.3, value=1.0),
        trial(0.4, value=1.0),
    ]
    for each, seconds in zip(trials, (1.5, 60.0, 7200.0, 1.0), strict=True):
        assert each.datetime_complete is not None
        each.datetime_start = each.datetime_complete - timedelta(seconds=seconds)
    got = read_history(trials, [MINIMIZE], SPACE, current=99)
    np.testing.assert_array_equal(got.seconds, [1.5, math.nan, 7200.0, 1.0])
    trials[3].datetime_start = None
    got = read_history(trials, [MINIMIZE], SPACE, current=99)
    np.testing.assert_array_equal(got.seconds, [1.5, math.nan, 7200.0, math.nan])
