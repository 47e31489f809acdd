"""A search space from a TOML file: one table per parameter, in the order of the file.

[<name>] type = "int"          low, high; optional log, step
[<name>] type = "float"        low, high; optional log, step
[<name>] type = "categorical"  choices
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from decimal import Decimal
import os
from pathlib import Path
import sys
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from optuna_llmbo._util.toml_file import read_toml
from optuna_llmbo.errors import InputError


_RANGE_KEYS = ("type", "low", "high", "log", "step")
_CHOICES_KEYS = ("type", "choices")


def read_space(path: str | os.PathLike[str]) -> dict[str, BaseDistribution]:
    """Read a search space. `space.check` checks the names.

    Args:
        path: path of a TOML file in the schema of this module.

    Returns:
        Distributions by parameter name, in the order of the file.

    Raises:
        InputError: at the first mistake, naming the file and the table.
    """
    file = Path(path).expanduser()
    tables = read_toml(
        file,
        "search space",
        "give the path of a TOML file, a dict of optuna.distributions, a function of the trial, "
        "or None",
    )
    if not tables:
        raise InputError(f"search space {str(file)!r} has no tables: write one a parameter.")
    return {name: _distribution(table, f"{file}: [{name}]") for name, table in tables.items()}


def _distribution(table: Any, where: str) -> BaseDistribution:
    if not isinstance(table, Mapping):
        raise InputError(
            f'{where} is {table!r}: expected a table, such as type = "int", low = 1, high = 64.'
        )
    makers: dict[str, Callable[[Mapping[str, Any], str], BaseDistribution]] = {
        "int": _int,
        "float": _float,
        "categorical": _categorical,
    }
    kind = _required(table, "type", where)
    if not isinstance(kind, str) or kind not in makers:
        raise InputError(f"{where} type is {kind!r}: expected one of {', '.join(makers)}.")
    return makers[kind](table, where)


def _int(table: Mapping[str, Any], where: str) -> IntDistribution:
    low, high, log, step = _range(table, where, _is_int, "an integer")
    return IntDistribution(low, high, log=log, step=1 if step is None else step)


def _float(table: Mapping[str, Any], where: str) -> FloatDistribution:
    low, high, log, step = _range(table, where, _is_finite, "a finite number")
    return FloatDistribution(low, high, log=log, step=step)


def _categorical(table: Mapping[str, Any], where: str) -> CategoricalDistribution:
    _check_keys(table, _CHOICES_KEYS, where)
    choices = _required(table, "choices", where)
    plain = isinstance(choices, list) and all(
        isinstance(choice, (str, int, float, bool)) for choice in choices
    )
    if not plain or not choices:
        raise InputError(
            f"{where} choices is {choices!r}: expected a list of strings, numbers or booleans, "
            "at least one."
        )
    if twice := [choice for i, choice in enumerate(choices) if choice in choices[:i]]:
        raise InputError(f"{where} has the choice {twice[0]!r} more than once: remove one.")
    return CategoricalDistribution(choices)


def _range(
    table: Mapping[str, Any], where: str, accepts: Callable[[Any], bool], expected: str
) -> tuple[Any, Any, bool, Any]:
    """Low, high, log and step (None if there is none) of a table, checked."""
    _check_keys(table, _RANGE_KEYS, where)
    low, high = _required(table, "low", where), _required(table, "high", where)
    log, step = table.get("log", False), table.get("step")
    for key, value in (("low", low), ("high", high), ("step", step)):
        if not accepts(value) and not (key == "step" and value is None):
            raise InputError(f"{where} {key} is {value!r}: expected {expected}.")
    if not isinstance(log, bool):
        raise InputError(f"{where} log is {log!r}: expected true or false.")
    if low > high:
        raise InputError(f"{where} low = {low} is above high = {high}: exchange them.")
    if log:
        _check_log(low, step, where)
    if step is not None:
        _check_step(low, high, step, where)
    return low, high, log, step


def _check_log(low: float, step: float | None, where: str) -> None:
    if low <= 0:
        raise InputError(
            f"{where} low = {low} with log = true: a logarithmic range starts above 0."
        )
    if step is not None:
        raise InputError(
            f"{where} has both log = true and step = {step}: a logarithmic range has no steps, "
            "leave one of them out."
        )


def _check_step(low: float, high: float, step: float, where: str) -> None:
    if step <= 0:
        raise InputError(f"{where} step = {step}: expected a number above 0.")
    if (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)) != 0:
        raise InputError(
            f"{where} high = {high} is no whole number of steps of {step} above low = {low}, so "
            "that it would never be tried: change one of the three."
        )


def _check_keys(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    if unknown := sorted(table.keys() - set(known)):
        raise InputError(
            f"{where} has the unknown key {unknown[0]!r}: with type = {table['type']!r} it can "
            f"have {', '.join(known)}."
        )


def _required(table: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in table:
        raise InputError(f"{where} has no {key!r}: add it.")
    return table[key]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max
