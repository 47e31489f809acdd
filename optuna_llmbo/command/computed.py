"""Values that are computed, such as `round(rank * alpha_ratio)`, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
import math
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from optuna_llmbo.command.numbers import is_number
from optuna_llmbo.errors import InputError
from optuna_llmbo.knowledge.expression import Expression


_MANY = 10_000
"""Values of an integer parameter that are tried to find the one that a file has."""


def compute(expression: Expression, values: Mapping[str, Any]) -> int | float:
    """The value of an expression: an integer if it is computed of integers and is whole, or
    rounded.

    Raises:
        InputError: if it has no finite value, or a value in it is no number.
    """
    used = {name: values[name] for name in expression.names}
    for name, value in used.items():
        if not is_number(value):
            raise InputError(
                f"{expression.text!r} computes with {name!r}, which has the value {value!r}: "
                "only numbers can be computed with."
            )
    result = expression.evaluate(used)
    if not math.isfinite(result):
        raise InputError(f"{expression.text!r} has no finite value with {used}.")
    of_integers = all(isinstance(value, int) for value in used.values())
    is_whole = result == int(result) and (of_integers or expression.is_rounded)
    return int(result) if is_whole else result


def solve(
    expression: Expression,
    name: str,
    distribution: BaseDistribution,
    known: Mapping[str, Any],
    target: float,
) -> Any:
    """The value of one parameter with which an expression has a value; None if there is none.

    Args:
        expression: the expression.
        name: the parameter.
        distribution: its range or choices.
        known: values of the other names.
        target: value of the expression.
    """

    def error(value: Any) -> float:
        return expression.evaluate({**known, name: value}) - target

    def fits(value: Any) -> bool:
        return abs(error(value)) <= 1e-9 * max(1.0, abs(target))

    if isinstance(distribution, FloatDistribution):
        ends = [*_neat(distribution), distribution.low, distribution.high]
        return next((x for x in ends if fits(x)), None) or _root(error, fits, distribution)
    return next((x for x in _candidates(distribution) if fits(x)), None)


def _candidates(distribution: BaseDistribution) -> Any:
    if isinstance(distribution, IntDistribution):
        values = range(distribution.low, distribution.high + 1, distribution.step)
        return values[:_MANY]
    if isinstance(distribution, CategoricalDistribution):
        return [choice for choice in distribution.choices if is_number(choice)]
    return []


def _neat(distribution: FloatDistribution) -> list[float]:
    """Values that a person would choose, so that a ratio is 2 and not 1.9999999999999998."""
    if distribution.step is not None:
        n = round((distribution.high - distribution.low) / distribution.step) + 1
        return [distribution.low + i * distribution.step for i in range(min(n, _MANY))]
    neat = [n * s for s in (0.01, 0.1, 0.25, 1.0) for n in range(1, 101)]
    return [x for x in neat if distribution.low <= x <= distribution.high]


def _root(error: Any, fits: Any, distribution: FloatDistribution) -> float | None:
    from scipy.optimize import brentq

    low, high = distribution.low, distribution.high
    at_ends = error(low), error(high)
    if distribution.step is not None or not all(map(math.isfinite, at_ends)):
        return None
    if at_ends[0] * at_ends[1] > 0:
        return None
    root = float(brentq(error, low, high, xtol=1e-15, rtol=1e-14))
    return root if fits(root) else None
