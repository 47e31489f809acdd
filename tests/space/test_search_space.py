from __future__ import annotations

import math

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from optuna_llmbo.space.axis import Axis
from optuna_llmbo.space.search_space import SearchSpace


DISTRIBUTIONS = [
    FloatDistribution(-3.0, 7.0),
    FloatDistribution(1e-6, 5e-3, log=True),
    FloatDistribution(-10.2, 10.2, step=0.1),
    IntDistribution(-4, 9),
    IntDistribution(1, 256, log=True),
    IntDistribution(0, 30, step=3),
    CategoricalDistribution((1, 2, 4, 8)),
    CategoricalDistribution((8, 1, 2)),
    CategoricalDistribution(("a", "b", "c")),
    CategoricalDistribution((None, True, 1.5, "x", 0)),
    CategoricalDistribution((float("nan"), "x")),
    CategoricalDistribution((True, False)),
]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
def test_unit_round_trip(distribution: BaseDistribution) -> None:
    axis = Axis(distribution)
    for u in np.linspace(0.0, 1.0, 101):
        value = axis.from_unit(u)
        assert distribution._contains(distribution.to_internal_repr(value))
        again = axis.from_unit(axis.to_unit(value))
        assert distribution.to_internal_repr(again) == pytest.approx(
            distribution.to_internal_repr(value), nan_ok=True
        )
        assert type(again) is type(value)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
def test_finite_axes_reach_every_value(distribution: BaseDistribution) -> None:
    axis = Axis(distribution)
    if math.isinf(axis.n_values):
        return
    values = [axis.from_unit(u) for u in axis.places()]
    assert len(values) == axis.n_values
    reached = {distribution.to_internal_repr(axis.from_unit(u)) for u in np.linspace(0, 1, 5000)}
    assert reached == {distribution.to_internal_repr(value) for value in values}


def test_log_scale_and_order() -> None:
    rate = Axis(FloatDistribution(1e-6, 1e-2, log=True))
    assert rate.to_unit(1e-4) == pytest.approx(0.5)
    # numeric choices are ordered by size, not by place
    assert [Axis(CategoricalDistribution((8, 1, 2))).to_unit(v) for v in (1, 2, 8)] == (
        pytest.approx([1 / 6, 3 / 6, 5 / 6])
    )


def test_values_outside_the_range_lie_outside_at_most_one_range_off() -> None:
    assert Axis(FloatDistribution(0.0, 2.0)).to_unit(3.0) == 1.5
    assert Axis(FloatDistribution(0.0, 1.0)).to_unit(7.0) == 2.0
    assert Axis(FloatDistribution(0.1, 1.0, log=True)).to_unit(-1.0) == -1.0
    assert Axis(IntDistribution(1, 4)).to_unit(6) == pytest.approx(5.5 / 4)


def test_a_number_is_placed_next_to_its_place_inside() -> None:
    assert Axis(FloatDistribution(0.0, 1.0)).place(7.0) == 1.0
    assert Axis(FloatDistribution(0.1, 1.0, log=True)).place(-1.0) == 0.0
    assert Axis(IntDistribution(1, 4)).place(9) == Axis(IntDistribution(1, 4)).to_unit(4)


BRANCHES = SearchSpace(
    {
        "c": CategoricalDistribution(("a", "b", "z")),
        "rate": FloatDistribution(1e-4, 1.0, log=True),
        "n": IntDistribution(1, 4),
    },
    groups=(("n", "rate"),),
)


def test_what_a_configuration_lacks_is_nan_in_the_cube() -> None:
    configurations = [{"c": "a", "n": 2, "rate": 1e-2}, {"c": "b"}]
    points = BRANCHES.to_unit(configurations)  # type: ignore[arg-type]
    assert BRANCHES.names == ("c", "n", "rate") and BRANCHES.shared == ("c",)
    np.testing.assert_array_equal(np.isnan(points), [[False] * 3, [False, True, True]])
    np.testing.assert_array_equal(BRANCHES.snap(points), points)
    back = BRANCHES.from_unit(points)
    assert back[1] == configurations[1] and back[0] == pytest.approx(configurations[0])
    assert math.isnan(BRANCHES.numbers(points)["rate"][1])
    keys = BRANCHES.keys(np.vstack([points, points]))
    assert keys[:2] == keys[2:] and keys[0] != keys[1]  # nan is itself here


def test_features_of_what_is_missing() -> None:
    points = BRANCHES.to_unit([{"c": "a", "n": 2, "rate": 1e-2}, {"c": "b"}])
    features = BRANCHES.features(points)
    # n, rate, whether the group is there; c is a choice
    np.testing.assert_allclose(features, [[0.375, 0.5, 1.0], [0.5, 0.5, 0.0]])
    np.testing.assert_array_equal(BRANCHES.choices(points), [[0], [1]])


def test_restrict_needs_the_shared_parameters_only() -> None:
    assert BRANCHES.restrict({"c": "a", "other": 1}) == {"c": "a"}
    assert BRANCHES.restrict({"n": 1, "rate": 0.1}) is None
    assert BRANCHES.restrict({"c": "gone"}) is None
    assert BRANCHES.restrict({"c": "a", "n": "x"}) is None
    lone = SearchSpace({"n": IntDistribution(1, 4)}, groups=(("n",),))
    assert lone.restrict({"other": 1}) is None


def test_nearest() -> None:
    assert Axis(IntDistribution(2, 12)).nearest(16) == 12
    assert Axis(FloatDistribution(0.0, 1.0, step=0.25)).nearest(0.6) == 0.5
    assert Axis(CategoricalDistribution((1, 4, 64))).nearest(16) == 4
    assert Axis(CategoricalDistribution(("adamw", "sgd"))).nearest("sgd") == "sgd"
    assert Axis(CategoricalDistribution(("adamw", "sgd"))).nearest("lion") is None
    assert Axis(CategoricalDistribution((True, False))).nearest(1) is None
    assert Axis(FloatDistribution(0.0, 1.0)).nearest("a") is None
    assert Axis(FloatDistribution(0.1, 0.9, step=0.2)).nearest(5.0) == pytest.approx(0.9)
    assert Axis(IntDistribution(1, 10, step=3)).nearest(16) == 10
    assert Axis(IntDistribution(4, 4)).nearest(16) == 4


def test_nominal_choices_are_counted_apart_from_the_numbers() -> None:
    space = SearchSpace(
        {
            "z": CategoricalDistribution(("a", "b", "c")),
            "x": FloatDistribution(0, 2),
            "ordinal": CategoricalDistribution((4, 1)),
            "b": CategoricalDistribution((True, False, "auto", None)),
        }
    )
    assert space.nominal == ("b", "z")
    rows = [
        {"z": "c", "x": 0.5, "ordinal": 4, "b": None},
        {"z": "a", "x": 2.0, "ordinal": 1, "b": False},
    ]
    points = space.to_unit(rows)
    np.testing.assert_allclose(space.features(points), [[0.75, 0.25], [0.25, 1.0]])
    choices = space.choices(points)
    assert choices.dtype == np.float64
    np.testing.assert_array_equal(choices, [[3, 2], [1, 0]])  # b, z, in the order of the choices
    # each coordinate of a choice's share of the interval is that choice
    points[0, space.names.index("z")] = 0.68
    np.testing.assert_array_equal(space.choices(points), choices)


def test_choices_that_are_missing_are_none_of_them() -> None:
    space = SearchSpace(
        {
            "kind": CategoricalDistribution(("tree", "net")),
            "weights": CategoricalDistribution(("uniform", "distance")),
        },
        groups=(("weights",),),
    )
    points = space.to_unit([{"kind": "net"}, {"kind": "tree", "weights": "distance"}])
    np.testing.assert_array_equal(space.choices(points), [[1, -1], [0, 1]])
    np.testing.assert_array_equal(space.features(points), [[0], [1]])  # is the group there?


def test_spaces_of_numbers_or_of_choices_alone() -> None:
    numbers = SearchSpace({"x": FloatDistribution(0, 1)})
    assert numbers.nominal == () and numbers.choices(np.zeros((4, 1))).shape == (4, 0)
    choices = SearchSpace({"c": CategoricalDistribution(("a", "b"))})
    assert choices.nominal == ("c",) and choices.features(np.zeros((4, 1))).shape == (4, 0)


def test_grid_and_size() -> None:
    space = SearchSpace({"b": CategoricalDistribution(("x", "y")), "a": IntDistribution(1, 3)})
    grid = space.grid()
    assert space.n_configurations == len(grid) == len(set(space.keys(grid))) == 6
    assert space.keys(grid) == [space.key(c) for c in space.from_unit(grid)]
    assert SearchSpace({"x": FloatDistribution(0, 1)}).n_configurations == math.inf


def test_key_tells_true_from_one_by_place() -> None:
    space = SearchSpace({"c": CategoricalDistribution(("x", None, float("nan")))})
    keys = [space.key({"c": value}) for value in ("x", None, float("nan"))]
    assert len(set(keys)) == 3


def test_restrict() -> None:
    space = SearchSpace({"x": FloatDistribution(0, 1)})
    assert space.restrict({"x": 0.5, "y": 1}) == {"x": 0.5}
    assert space.restrict({"y": 1}) is None


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
def test_many_points_at_once_are_as_one_by_one(distribution: BaseDistribution) -> None:
    axis = Axis(distribution)
    units = np.linspace(0.0, 1.0, 101)
    values = [axis.from_unit(u) for u in units]
    np.testing.assert_allclose(axis.snap(units), [axis.to_unit(v) for v in values], atol=1e-12)
    numbers = axis.numbers(units)
    if axis.is_nominal:
        assert np.isnan(numbers).all()
    else:
        np.testing.assert_allclose(numbers, values)


def test_place_of_a_number_between_choices() -> None:
    choices = Axis(CategoricalDistribution((64, 1, 4)))  # at 5/6, 1/6, 3/6
    assert choices.place(4) == pytest.approx(3 / 6)
    assert 1 / 6 < choices.place(2.5) < 3 / 6
    assert choices.place(1000) == pytest.approx(5 / 6)
    assert math.isnan(Axis(CategoricalDistribution(("a", "b"))).place(1))
    assert Axis(FloatDistribution(1e-6, 1e-2, log=True)).place(1e-4) == pytest.approx(0.5)
