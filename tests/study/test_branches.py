from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_llmbo.study.branches import Branches
from optuna_llmbo.study.branches import informative
from optuna_llmbo.study.branches import latest_distributions
from optuna_llmbo.study.branches import read_branches
from optuna_llmbo.study.branches import shared_distributions


CHOICES = CategoricalDistribution(("adam", "sgd", "lbfgs"))
UNIT = FloatDistribution(0.0, 1.0)
LAYERS = IntDistribution(1, 3)


def trials_of(*params: Mapping[str, Any]) -> list[FrozenTrial]:
    kinds = {"optimizer": CHOICES, "layers": LAYERS}
    return [
        optuna.create_trial(
            params=dict(some),
            distributions={name: kinds.get(name, UNIT) for name in some},
            value=0.0,
        )
        for some in params
    ]


OPTIMIZERS = trials_of(
    {"optimizer": "adam", "beta": 0.1, "decay": 0.1},
    {"optimizer": "sgd", "momentum": 0.5, "decay": 0.9},
    {"optimizer": "lbfgs", "decay": 0.4},
    {"optimizer": "adam", "beta": 0.9, "decay": 0.6},
    {"optimizer": "sgd", "momentum": 0.1, "decay": 0.2},
)


def structure(trials: list[FrozenTrial]) -> Branches:
    return read_branches(trials, latest_distributions(trials))


def drawn(found: Branches, n: int) -> np.ndarray:
    points = np.random.default_rng(0).random((n, len(found.space.names)))
    return found.spread(found.space.snap(points))


def names_of(found: Branches, point: np.ndarray) -> set[str]:
    return set(found.space.from_unit(point[None])[0])


def test_branches_of_a_choice() -> None:
    found = structure(OPTIMIZERS)
    assert len(found.patterns) == 3
    assert found.space.shared == ("decay", "optimizer")
    assert set(found.space.groups) == {("beta",), ("momentum",)}
    points = drawn(found, 300)
    assert len(points) == 300
    extra = {"adam": {"beta"}, "sgd": {"momentum"}, "lbfgs": set()}
    seen = set()
    for point in points:
        configuration = found.space.from_unit(point[None])[0]
        optimizer = configuration["optimizer"]
        assert set(configuration) == {"decay", "optimizer"} | extra[optimizer]
        seen.add(optimizer)
    assert seen == set(extra)
    assert found.is_consistent(points).all()


def test_branches_of_a_number_and_branches_within_branches() -> None:
    trials = trials_of(
        {"layers": 1, "width0": 0.2},
        {"layers": 2, "width0": 0.3, "width1": 0.1},
        {"layers": 3, "width0": 0.9, "width1": 0.2, "width2": 0.7},
        {"layers": 3, "width0": 0.4, "width1": 0.5, "width2": 0.1},
        {"layers": 1, "width0": 0.8},
    )
    found = structure(trials)
    points = drawn(found, 200)
    for configuration in found.space.from_unit(points):
        n = configuration["layers"]
        assert set(configuration) == {"layers", *(f"width{i}" for i in range(n))}


def test_a_study_without_branches() -> None:
    trials = trials_of({"x": 0.1, "y": 0.2}, {"x": 0.3, "y": 0.4})
    found = structure(trials)
    points = np.random.default_rng(0).random((10, 2))
    assert len(found.patterns) == 1 and found.space.groups == ()
    np.testing.assert_array_equal(found.spread(points), points)
    assert found.is_consistent(points).all()
    assert not found.is_consistent(np.array([[0.1, np.nan]])).any()


def test_a_choice_explains_before_a_number_does() -> None:
    """Both tell the patterns apart; the objective's `if` asks for the choice."""
    trials = trials_of(
        {"optimizer": "adam", "beta": 0.1, "decay": 0.1},
        {"optimizer": "adam", "beta": 0.1, "decay": 0.2},
        {"optimizer": "sgd", "decay": 0.7},
        {"optimizer": "sgd", "decay": 0.9},
    )
    found = structure(trials)
    points = drawn(found, 60)
    for configuration in found.space.from_unit(points):
        if configuration["optimizer"] != "lbfgs":  # which was never tried
            assert ("beta" in configuration) == (configuration["optimizer"] == "adam")


def test_a_branch_within_a_branch() -> None:
    trials = [
        {"optimizer": "adam", "layers": 1 + i % 3, "decay": i / 12}
        | ({"warm": i / 12} if i % 3 else {})
        for i in range(12)
    ] + [{"optimizer": "sgd", "decay": i / 12} for i in range(12)]
    found = structure(trials_of(*trials))
    points = drawn(found, 100)
    for configuration in found.space.from_unit(points):
        if configuration["optimizer"] == "lbfgs":
            continue
        assert ("layers" in configuration) == (configuration["optimizer"] == "adam")
        assert ("warm" in configuration) == (configuration.get("layers", 1) > 1)


def test_presence_that_nothing_explains() -> None:
    """The parameters that most trials have are expected."""
    trials = trials_of({"x": 0.1, "odd": 0.5}, {"x": 0.1}, {"x": 0.1, "odd": 0.1})
    found = structure(trials)
    points = drawn(found, 50)
    assert len(points) == 50
    assert all(names_of(found, point) == {"x", "odd"} for point in points)


def test_only_patterns_with_some_parameters() -> None:
    found = structure(OPTIMIZERS)
    some = found.with_all(["momentum"])
    points = drawn(some, 20)
    assert len(points) == 20
    assert all("momentum" in names_of(found, point) for point in points)
    assert found.with_all(["momentum", "beta"]) is found  # there is none


def test_parameters_that_all_are_to_have() -> None:
    found = read_branches(OPTIMIZERS, {"beta": UNIT, "decay": UNIT}, always=["beta", "decay"])
    assert found.space.groups == () and found.space.shared == ("beta", "decay")
    assert len(found.observed) == 2
    fresh = read_branches([], {"x": UNIT})
    assert fresh.space.shared == ("x",) and fresh.patterns.all()


def test_the_latest_range_counts_and_single_values_do_not() -> None:
    study = optuna.create_study()
    for high in (1.0, 5.0):
        asked = study.ask({"x": FloatDistribution(0.0, high), "one": IntDistribution(3, 3)})
        study.tell(asked, 0.0)
    assert latest_distributions(study.trials) == {"x": FloatDistribution(0.0, 5.0)}
    assert shared_distributions(study.trials) == {"x": FloatDistribution(0.0, 5.0)}
    assert shared_distributions([]) == {}
    assert set(shared_distributions(OPTIMIZERS)) == {"optimizer", "decay"}


def test_what_is_informative() -> None:
    states = [
        (TrialState.COMPLETE, {}, True),
        (TrialState.PRUNED, {3: 0.5}, True),
        (TrialState.PRUNED, {}, False),
        (TrialState.FAIL, {3: 0.5}, False),
        (TrialState.RUNNING, {}, False),
        (TrialState.WAITING, {}, False),
    ]
    trials = [
        optuna.create_trial(
            state=state,
            value=1.0 if state == TrialState.COMPLETE else None,
            intermediate_values=values,
        )
        for state, values, _ in states
    ]
    assert informative(trials) == [t for t, (_, _, yes) in zip(trials, states, strict=True) if yes]


def test_points_are_completed_with_what_their_values_lead_to() -> None:
    found = structure(OPTIMIZERS)
    configurations: list[dict[str, Any]] = [
        {"optimizer": "sgd"},
        {"optimizer": "lbfgs", "decay": 0.2},
        {"beta": 0.5, "decay": 0.5, "optimizer": "adam"},
    ]
    points = found.space.to_unit(configurations)
    got = found.completed(points, 3, np.random.default_rng(0))
    assert len(got) == 3 + 1 + 1  # only the first lacks something
    for point in got[:3]:
        assert names_of(found, point) == {"optimizer", "decay", "momentum"}
    np.testing.assert_array_equal(
        got[:3, found.space.names.index("optimizer")],
        points[0, found.space.names.index("optimizer")],
    )
    assert len(np.unique(got[:3, found.space.names.index("decay")])) == 3
    np.testing.assert_array_equal(got[3:], points[1:])
    assert found.expected_names(points[1]) == ["decay", "optimizer"]
