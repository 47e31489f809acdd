"""Turn TOML tables into a `Pack`; a mistake is reported with file, key and remedy.

[pack]                          name, summary; optional sources, companions, generic, neutral,
                                method, only
[hyperparameters.<canonical>]   description; optional aliases, relations, typical, choices
[[hyperparameters.<canonical>.choices]]
                                names, description
[derived.<name>]                expression, description
[[recommended]]                 name, source; optional when
[recommended.values]            <canonical> = number, string or boolean

`typical` is [low, high], or a list of { range = [low, high], when = {...} }. A condition `when`
has any of method = "lora", parameters = [low, high], steps = [low, high].
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import difflib
import keyword
import math
import numbers
import re
from types import MappingProxyType
from typing import Any

from optuna_llmbo.errors import InputError
from optuna_llmbo.knowledge.context import Condition
from optuna_llmbo.knowledge.context import METHODS
from optuna_llmbo.knowledge.expression import parse
from optuna_llmbo.knowledge.pack import Choice
from optuna_llmbo.knowledge.pack import DerivedQuantity
from optuna_llmbo.knowledge.pack import Hyperparameter
from optuna_llmbo.knowledge.pack import normalise
from optuna_llmbo.knowledge.pack import Pack
from optuna_llmbo.knowledge.pack import Recommendation
from optuna_llmbo.knowledge.pack import TypicalRange


__all__ = ["read_pack"]


@dataclass(frozen=True)
class _Kind:
    """A type of value: its name in messages, its check, and its default when left out."""

    expected: str
    accepts: Callable[[Any], bool]
    empty: Any


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value))


def _is_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value)


def _is_finite(value: Any) -> bool:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def is_range(value: Any) -> bool:
    """Check for a pair of finite numbers, the lower first."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    return all(map(_is_finite, value)) and value[0] < value[1]


_TEXT = _Kind("a string that is not empty", _is_text, "")
_PROSE = _Kind("a string", lambda value: isinstance(value, str), "")
_TEXTS = _Kind("a list of strings that are not empty", _is_texts, ())
_NAMES = _Kind(
    "a list of one or more strings that are not empty",
    lambda value: _is_texts(value) and bool(value),
    (),
)
_TABLE = _Kind("a table", lambda value: isinstance(value, Mapping), MappingProxyType({}))
_TABLES = _Kind("a list of tables", _is_tables, ())
_RANGE = _Kind("[low, high], two finite numbers with low < high", is_range, None)
_TYPICAL = _Kind(
    f"{_RANGE.expected}, or a list of tables with such a range",
    lambda value: is_range(value) or bool(_is_tables(value) and value),
    (),
)
_METHOD = _Kind(f"one of {', '.join(METHODS)}", lambda value: value in METHODS, None)


def read_pack(table: Mapping[str, Any], where: str, *, always_relevant: bool) -> Pack:
    """Check a parsed TOML document and build a pack from it.

    Args:
        table: the document, in the schema of this module.
        where: the file's path or another name for the document, for messages.
        always_relevant: the pack's field of that name.

    Returns:
        The pack.

    Raises:
        InputError: at the first mistake in the document.
    """
    optional = {"hyperparameters": _TABLE, "derived": _TABLE, "recommended": _TABLES}
    parts = _fields(table, where, {"pack": _TABLE}, optional)
    head = _fields(
        parts["pack"],
        f"{where}: [pack]",
        {"name": _TEXT, "summary": _TEXT},
        {
            **dict.fromkeys(("sources", "companions", "generic", "neutral"), _TEXTS),
            "method": _METHOD,
            "only": _METHOD,
        },
    )
    hyperparameters = _hyperparameters(parts["hyperparameters"], where)
    names = [hyperparameter.name for hyperparameter in hyperparameters]
    pack = Pack(
        name=head["name"],
        summary=_one_line(head["summary"]),
        hyperparameters=hyperparameters,
        derived=_derived(parts["derived"], names, where),
        recommended=_recommended(parts["recommended"], names, where),
        sources=tuple(head["sources"]),
        companions=tuple(head["companions"]),
        generic=tuple(head["generic"]),
        neutral=tuple(head["neutral"]),
        method=head["method"],
        only=head["only"],
        always_relevant=always_relevant,
    )
    for key in ("generic", "neutral"):
        for name in head[key]:
            if pack.find(name) is None:
                raise _unknown(f"{where}: [pack] {key}", name, "a name or alias", names)
    return pack


def _hyperparameters(tables: Mapping[str, Any], where: str) -> tuple[Hyperparameter, ...]:
    hyperparameters = []
    owners: dict[str, str] = {}
    for name, table in tables.items():
        place = f"{where}: [hyperparameters.{name}]"
        _check_name(name, place)
        optional = {
            "aliases": _TEXTS,
            "relations": _PROSE,
            "typical": _TYPICAL,
            "choices": _TABLES,
        }
        entry = _fields(table, place, {"description": _TEXT}, optional)
        for spelling in (name, *entry["aliases"]):
            owner = owners.setdefault(normalise(spelling), name)
            if owner != name:
                raise InputError(
                    f"{place}: {spelling!r} already means {owner!r}; "
                    "a spelling belongs to one hyperparameter of a pack; remove it from the other"
                )
        hyperparameters.append(
            Hyperparameter(
                name=name,
                aliases=tuple(entry["aliases"]),
                description=_one_line(entry["description"]),
                relations=_one_line(entry["relations"]),
                typical=_typical(entry["typical"], f"{place}: typical"),
                choices=_choices(entry["choices"], f"{place}: choices"),
            )
        )
    return tuple(hyperparameters)


def _choices(tables: Sequence[Mapping[str, Any]], where: str) -> tuple[Choice, ...]:
    choices = []
    owners: dict[str, int] = {}
    for number, table in enumerate(tables, start=1):
        place = f"{where} number {number}"
        entry = _fields(table, place, {"names": _NAMES, "description": _TEXT}, {})
        for name in entry["names"]:
            owner = owners.setdefault(normalise(name), number)
            if owner != number:
                raise InputError(
                    f"{place}: {name!r} is already a name of number {owner}; "
                    "a name belongs to one choice of a hyperparameter; remove it from the other"
                )
        choices.append(Choice(tuple(entry["names"]), _one_line(entry["description"])))
    return tuple(choices)


def _typical(entry: Sequence[Any], where: str) -> tuple[TypicalRange, ...]:
    """Read a range for all contexts, or a list of ranges for some."""
    if is_range(entry):
        entry = [{"range": entry}]
    ranges = []
    for index, table in enumerate(entry):
        place = f"{where} number {index + 1}"
        one = _fields(table, place, {"range": _RANGE}, {"when": _TABLE})
        low, high = map(float, one["range"])
        ranges.append(TypicalRange(low, high, _condition(one["when"], place)))
    return tuple(ranges)


def _condition(table: Mapping[str, Any], where: str) -> Condition:
    kinds = {"method": _METHOD, "parameters": _RANGE, "steps": _RANGE}
    parts = _fields(table, f"{where}: when", {}, kinds)
    ranges = {name: parts[name] and tuple(parts[name]) for name in ("parameters", "steps")}
    return Condition(parts["method"], **ranges)


def _derived(
    tables: Mapping[str, Any], names: list[str], where: str
) -> tuple[DerivedQuantity, ...]:
    quantities: list[DerivedQuantity] = []
    for name, table in tables.items():
        place = f"{where}: [derived.{name}]"
        _check_name(name, place)
        entry = _fields(table, place, {"expression": _TEXT, "description": _TEXT}, {})
        try:
            expression = parse(entry["expression"])
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
        known = [*names, *(quantity.name for quantity in quantities)]
        for needed in sorted(expression.names):
            if needed not in known:
                expected = "a hyperparameter or an earlier derived quantity of this pack"
                raise _unknown(f"{place} expression", needed, expected, known)
        quantities.append(DerivedQuantity(name, expression, _one_line(entry["description"])))
    return tuple(quantities)


def _recommended(
    tables: Collection[Mapping[str, Any]], names: list[str], where: str
) -> tuple[Recommendation, ...]:
    recommendations = []
    for index, table in enumerate(tables):
        place = f"{where}: [[recommended]] number {index + 1}"
        required = {"name": _TEXT, "source": _TEXT, "values": _TABLE}
        entry = _fields(table, place, required, {"when": _TABLE})
        for name, value in entry["values"].items():
            if name not in names:
                raise _unknown(f"{place} values", name, "a hyperparameter of this pack", names)
            if not isinstance(value, bool | int | float | str):
                got = type(value).__name__
                raise InputError(
                    f"{place} values: {name!r} must be a number, a string or a boolean, got {got}"
                )
        when = _condition(entry["when"], place)
        recommendations.append(
            Recommendation(entry["name"], dict(entry["values"]), entry["source"], when)
        )
    return tuple(recommendations)


def _fields(
    table: Any, where: str, required: Mapping[str, _Kind], optional: Mapping[str, _Kind]
) -> dict[str, Any]:
    """Return a table's values with defaults filled in; unknown, missing or bad ones raise."""
    if not isinstance(table, Mapping):
        raise InputError(f"{where}: expected a table, got {type(table).__name__}")
    kinds = {**required, **optional}
    for key in table:
        if key not in kinds:
            raise _unknown(where, key, "a key of this table", list(kinds))
    for key in required:
        if key not in table:
            raise InputError(
                f"{where}: key {key!r} is missing; required are {list(required)}, "
                f"optional are {list(optional)}"
            )
    for key, value in table.items():
        if not kinds[key].accepts(value):
            got = f"{type(value).__name__} {value!r}"
            raise InputError(f"{where}: {key!r} must be {kinds[key].expected}, got {got:.80}")
    return {key: table.get(key, kind.empty) for key, kind in kinds.items()}


def _unknown(where: str, name: Any, expected: str, known: Collection[str]) -> InputError:
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(
        f"{where}: {name!r} is not {expected}; {hint}known are {', '.join(known) or 'none'}"
    )


def _check_name(name: Any, where: str) -> None:
    """Check a name, which must be a lower-case identifier to be usable in expressions."""
    valid = isinstance(name, str) and re.fullmatch(r"[a-z][a-z0-9_]*", name)
    if not valid or keyword.iskeyword(name) or normalise(name) != name:
        raise InputError(
            f"{where}: the name {name!r} must be lower-case snake_case and not a Python keyword; "
            "put other spellings in `aliases`"
        )


def _one_line(text: str) -> str:
    return " ".join(text.split())
