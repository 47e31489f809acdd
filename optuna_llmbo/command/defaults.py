"""The control: the parameters with which the configuration would be as the user has it now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from optuna_llmbo.command.computed import solve
from optuna_llmbo.command.numbers import is_number
from optuna_llmbo.command.numbers import number_of
from optuna_llmbo.command.plan import check_known
from optuna_llmbo.command.plan import Plan
from optuna_llmbo.errors import InputError


_WORDS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}
"""What YAML 1.1 takes for booleans."""


@dataclass(frozen=True)
class Control:
    """The parameters of the control, or why there is none.

    Attributes:
        params: values of all parameters; None if one of them is not known.
        reasons: why values are not known, a sentence for each parameter.
    """

    params: dict[str, Any] | None
    reasons: tuple[str, ...] = ()


def find_control(plan: Plan, defaults: Mapping[str, Any]) -> Control:
    """The parameters that the configuration has now.

    Args:
        plan: where the parameters go.
        defaults: values that the user gives, which go before those of the file.

    Raises:
        InputError: if a given value is no parameter's, or not in the space.
    """
    check_known(defaults, plan.space, "defaults")
    found: dict[str, Any] = {}
    for name, value in defaults.items():
        fits = _admitted(plan.space[name], value)
        if not fits:
            raise InputError(
                f"the default {name}={value!r} is not in the space, which has "
                f"{_shown(plan.space[name])}: widen it there, or leave the default out."
            )
        found[name] = fits[0]
    reasons = []
    waiting = [name for name in plan.space if name not in found]
    for name in sorted(waiting, key=lambda name: plan.key_of(name) is None):
        now = _now(plan, name, found)
        if isinstance(now, str):
            reasons.append(now)
        else:
            found[name] = now[0]
    if reasons:
        return Control(None, tuple(reasons))
    return Control({name: found[name] for name in plan.space})


def _now(plan: Plan, name: str, known: Mapping[str, Any]) -> tuple[Any] | str:
    """The value that the configuration has now in a tuple, or why there is none."""
    key, distribution = plan.key_of(name), plan.space[name]
    if key is not None and plan.config is not None and key in plan.config:
        value = plan.config[key]
        return _admitted(distribution, value) or (
            f"{plan.config.path} has {key} = {value!r}, which is not in the space of {name!r}: "
            f"{_shown(distribution)}"
        )
    for key, source in plan.computed_of(name):
        target, expression = number_of(plan.current(key)), source.expression
        if target is None or expression.names - known.keys() != {name}:
            continue
        value = solve(expression, name, distribution, known, target)
        if value is None:
            return f"no {name!r} in the space makes {key} = {target:g}, as the file has it"
        return (value,)
    return f"nothing says which value {name!r} has by default"


def _admitted(distribution: BaseDistribution, value: Any) -> tuple[Any] | None:
    """The value as a parameter has it, in a tuple; None if the space does not have it."""
    if isinstance(distribution, CategoricalDistribution):
        return _choice(distribution, value)
    number = number_of(value)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    if number is None or not distribution.low <= number <= distribution.high:
        return None
    steps = (number - distribution.low) / distribution.step if distribution.step else 0.0
    if abs(steps - round(steps)) > 1e-9:
        return None
    return (int(number) if isinstance(distribution, IntDistribution) else number,)


def _choice(distribution: CategoricalDistribution, value: Any) -> tuple[Any] | None:
    for meant in _meanings(value):
        for choice in distribution.choices:
            same_kind = isinstance(choice, bool) == isinstance(meant, bool)
            if same_kind and choice == meant:
                return (choice,)
    return None


def _meanings(value: Any) -> list[Any]:
    """What a value of a file may mean to the program that reads it."""
    meanings = [value]
    if isinstance(value, str):
        meanings += [number_of(value), _WORDS.get(value.lower())]
    elif isinstance(value, list):
        meanings.append(",".join(map(str, value)))
    return [one for one in meanings if one is not None]


def _shown(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(map(str, distribution.choices))
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    step = distribution.step
    by = f" in steps of {step:g}" if is_number(step) and step != 1 else ""
    return f"{distribution.low:g} to {distribution.high:g}{by}"
