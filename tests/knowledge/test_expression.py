from __future__ import annotations

import copy
import math
import pickle
import warnings

import numpy as np
import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.knowledge import Expression
from optuna_llmbo.knowledge import parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3", 7.0),
        ("(1 + 2) * 3", 9.0),
        ("2 ** 3 ** 2", 512.0),
        ("-2 ** 2", -4.0),
        ("10 - 4 - 3", 3.0),
        ("1 / 8", 0.125),
        ("  1e-3 * 2", 0.002),
        ("sqrt(16) + log(exp(2)) + log2(8)", 9.0),
        ("min(3, 1, 2) + max(3, 1, 2)", 4.0),
        ("--3", 3.0),
    ],
)
def test_arithmetic_of_numbers(text: str, expected: float) -> None:
    assert parse(text).evaluate({}) == pytest.approx(expected, rel=1e-15)


def test_names_and_values() -> None:
    expression = parse("learning_rate * alpha / max(rank, 1)")
    assert expression.names == {"learning_rate", "alpha", "rank"}
    values = {"learning_rate": 1e-4, "alpha": 32, "rank": 16, "not_used": math.nan}
    assert expression.evaluate(values) == pytest.approx(2e-4)


def test_functions_are_no_names() -> None:
    assert parse("sqrt(a)").names == {"a"}


@pytest.mark.parametrize(
    "text",
    [
        "1 / 0",
        "0 ** -1",
        "log(0)",
        "log2(-1)",
        "sqrt(-1)",
        "(-8) ** (1 / 3)",
        "exp(1000)",
        "1e308 * 10",
        "1e999",
        "9 ** 9 ** 9",
        "9 ** 9 ** 9 ** 9 ** 9",
    ],
)
def test_what_does_not_exist_is_nan(text: str) -> None:
    assert math.isnan(parse(text).evaluate({}))


@pytest.mark.parametrize("text", ["max(1, a)", "min(a, 1)", "a ** 0", "1 / a", "a - a"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
def test_value_that_is_not_finite_gives_nan(text: str, value: float) -> None:
    assert math.isnan(parse(text).evaluate({"a": value}))


@pytest.mark.parametrize(
    "text",
    ["1 / (1e308 * 10)", "min(1, 1e999)", "max(1, 2, log(0))", "(1 / 0) ** 0", "1 ** log(0)"],
)
def test_what_does_not_exist_does_not_disappear(text: str) -> None:
    assert math.isnan(parse(text).evaluate({}))


def test_missing_value() -> None:
    with pytest.raises(InputError, match=r"'a / b' needs a value for \['b'\]"):
        parse("a / b").evaluate({"a": 1.0})
    with pytest.raises(InputError, match=r"'a / b' needs a value for \['b'\]"):
        parse("a / b").evaluate_columns({"a": np.ones(3)})


def random_columns(rng: np.random.Generator, m: int) -> dict[str, np.ndarray]:
    """Three columns of numbers of all sizes and signs, a fifth of them special."""
    special = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        2.0,
        1e-320,
        1e200,
        -1e308,
        math.inf,
        -math.inf,
        math.nan,
    ]
    columns = {}
    for name in "abc":
        numbers = rng.choice([-1.0, 1.0], m) * 10 ** rng.normal(scale=3.0, size=m)
        numbers[rng.random(m) < 0.3] = rng.integers(-4, 5)
        columns[name] = np.where(rng.random(m) < 0.2, rng.choice(special, m), numbers)
    return columns


def python_value(text: str, row: dict[str, float]) -> float:
    """The value by Python's own arithmetic; not for what makes an infinity disappear."""
    functions = {name: getattr(math, name) for name in ("sqrt", "log", "log2", "exp")}
    if not all(map(math.isfinite, row.values())):
        return math.nan
    try:
        value = eval(text, {"min": min, "max": max, **functions}, row)
    except (ArithmeticError, ValueError):
        return math.nan
    return value if isinstance(value, float) and math.isfinite(value) else math.nan


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "-a + b - c",
        "a * b / c",
        "a ** b",
        "a ** 2 * c",
        "a ** (1 / 3)",
        "2.0 ** a",
        "sqrt(a) * b",
        "log(a) * b",
        "log2(a / b)",
        "exp(a) / b",
        "min(a, b, c)",
        "max(a, b, 1.0)",
        "max(min(a, b), -c)",
    ],
)
def test_columns_are_the_numbers_one_by_one(text: str) -> None:
    columns = random_columns(np.random.default_rng(0), 1000)
    needed = {name: columns[name] for name in parse(text).names}
    rows = [
        dict(zip(needed, map(float, row), strict=True))
        for row in zip(*needed.values(), strict=True)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = parse(text).evaluate_columns(columns)
    assert values.dtype == np.float64
    assert 10 < np.isfinite(values).sum() < 1000
    one_by_one = [parse(text).evaluate(row) for row in rows]
    by_python = [python_value(text, row) for row in rows]
    for expected in (one_by_one, by_python):  # subnormal numbers have fewer digits
        np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-300)


def test_columns_of_other_types_and_lengths() -> None:
    np.testing.assert_array_equal(
        parse("a / 2").evaluate_columns({"a": np.arange(3)}), [0, 0.5, 1]
    )
    np.testing.assert_array_equal(parse("3").evaluate_columns({"a": np.zeros(2)}), [3.0, 3.0])
    assert parse("a * b").evaluate_columns({"a": np.ones(0), "b": np.ones(0)}).shape == (0,)


def test_columns_are_not_changed_nor_shared() -> None:
    column = np.array([1.0, math.inf])
    values = parse("a").evaluate_columns({"a": column})
    values[0] = 5.0
    np.testing.assert_array_equal(column, [1.0, math.inf])


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "__import__('os').system('true')",
        "a.real",
        "a[0]",
        "lambda: 1",
        "(lambda: 1)()",
        "[1, 2]",
        "{1: 2}",
        "(1, 2)",
        "f'{a}'",
        "'text'",
        "True",
        "None",
        "1j",
        "a if b else c",
        "a < b",
        "a and b",
        "not a",
        "+a",
        "~a",
        "a // b",
        "a % b",
        "a @ b",
        "a << b",
        "[a for a in b]",
        "(a := 1)",
        "min(*a)",
        "max(1, 2, key=a)",
        "sqrt(x=1)",
        "math.sqrt(2)",
        "...",
    ],
)
def test_forbidden_syntax(text: str) -> None:
    with pytest.raises(InputError, match="allowed are numbers, names") as caught:
        parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["", "  ", "1 +", "a = 1", "1 2", "import os", "(", "a\0b"])
def test_bad_syntax(text: str) -> None:
    with pytest.raises(InputError, match="not an expression; allowed are"):
        parse(text)


def test_unknown_function() -> None:
    with pytest.raises(InputError, match="unknown function 'eval'; .*sqrt"):
        parse("eval(1)")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sqrt()", "sqrt takes 1 argument, got 0"),
        ("log(8, 2)", "log takes 1 argument, got 2"),
        ("min(1)", "min takes 2 or more arguments, got 1"),
    ],
)
def test_number_of_arguments(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse(text)


def test_length_is_bounded() -> None:
    assert parse("1+" * 99 + "1").evaluate({}) == 100.0
    with pytest.raises(InputError, match="201 characters, more than 200"):
        parse("1" * 201)


@pytest.mark.parametrize("text", ["(" * 100 + "1" + ")" * 99, "-" * 199 + "a", "sqrt(" * 40])
def test_deep_nesting_neither_hangs_nor_crashes(text: str) -> None:
    try:
        assert math.isfinite(parse(text).evaluate({"a": 1.0}))
    except InputError:
        pass


def test_not_a_string() -> None:
    with pytest.raises(InputError, match="expected a string, got int"):
        parse(3)  # type: ignore[arg-type]


def test_is_a_value() -> None:
    expression = parse("a / b")
    assert expression == Expression("a / b") != Expression("b / a")
    assert hash(expression) == hash(Expression("a / b"))
    assert repr(expression) == "Expression(text='a / b')"
    for twin in (pickle.loads(pickle.dumps(expression)), copy.deepcopy(expression)):
        assert twin == expression
        assert twin.evaluate({"a": 3, "b": 2}) == 1.5
