"""The type in which a value goes into a key of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import json
from typing import Any

from optuna_llmbo.command.numbers import is_number
from optuna_llmbo.command.numbers import number_of
from optuna_llmbo.errors import InputError


def typed(value: Any, current: Any, key: str) -> Any:
    """A value in the type of the one that the file has there, where it would be another.

    A float key gets floats, a list key lists: text in the form of JSON, or divided at commas. A
    number does not replace a text, a boolean, a list or a table, nor a fraction that was computed
    an integer.

    Args:
        value: the new value.
        current: the file's value; None where it has none.
        key: the key, for messages.

    Raises:
        InputError: if a value of that kind cannot take its place.
    """
    if current is None:
        return value
    if isinstance(current, Mapping):
        raise InputError(
            f"the key {key!r} holds a table: name the key in it that is to be set, such as "
            f"{key}.{next(iter(current), 'lr')}."
        )
    if _is_list(current):
        return _as_list(value, key)
    if is_number(value) and not is_number(current) and number_of(current) is None:
        raise InputError(
            f"the key {key!r} holds {current!r}, which is no number, and would become {value!r}: "
            "check the name, or change the file."
        )
    if is_number(value) and isinstance(current, float):
        return float(value)
    return value


def check_whole(value: Any, current: Any, key: str, text: str) -> None:
    """Check that what was computed for an integer key is an integer.

    Raises:
        InputError: if it is a fraction.
    """
    is_integer_key = isinstance(current, int) and not isinstance(current, bool)
    if is_integer_key and isinstance(value, float) and value != int(value):
        raise InputError(
            f"the key {key!r} holds the integer {current}, and {text!r} would make it {value:g}: "
            f"write round({text}), or make the file's value {float(current)}."
        )


def _as_list(value: Any, key: str) -> Any:
    if _is_list(value):
        return list(value)
    if not isinstance(value, str):
        raise InputError(
            f"the key {key!r} holds a list and would become {value!r}: write choices such as "
            f'"q_proj,v_proj", or name an item: {key}.0.'
        )
    if not value.lstrip().startswith("["):
        return [part.strip() for part in value.split(",")]
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise InputError(f"the key {key!r} holds a list; {value!r} is none: {error}.") from error


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))
