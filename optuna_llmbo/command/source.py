"""Where the value of a key of the configuration comes from."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from dataclasses import dataclass
import json
from typing import Any

from optuna_llmbo.command.computed import compute
from optuna_llmbo.command.template import read_template
from optuna_llmbo.command.template import Template
from optuna_llmbo.errors import did_you_mean
from optuna_llmbo.errors import InputError
from optuna_llmbo.knowledge.expression import Expression
from optuna_llmbo.knowledge.expression import parse


@dataclass(frozen=True)
class Constant:
    """A value that is the same in every trial."""

    value: Any

    whole: frozenset[str] = frozenset()
    computed: frozenset[str] = frozenset()

    def of(self, values: Mapping[str, Any]) -> Any:
        """The value."""
        return self.value


@dataclass(frozen=True)
class Named:
    """The value of a parameter, or one of the names that every trial has."""

    name: str

    @property
    def whole(self) -> frozenset[str]:
        """The names whose values it takes as they are."""
        return frozenset({self.name})

    computed: frozenset[str] = frozenset()

    def of(self, values: Mapping[str, Any]) -> Any:
        """The value."""
        return values[self.name]


@dataclass(frozen=True)
class Computed:
    """A number that is computed of parameters."""

    expression: Expression

    whole: frozenset[str] = frozenset()

    @property
    def computed(self) -> frozenset[str]:
        """The names that it is computed of."""
        return self.expression.names

    def of(self, values: Mapping[str, Any]) -> Any:
        """The value."""
        return compute(self.expression, values)


@dataclass(frozen=True)
class Filled:
    """Text with placeholders."""

    template: Template

    @property
    def whole(self) -> frozenset[str]:
        """The names whose values it takes as they are."""
        return self.template.whole

    @property
    def computed(self) -> frozenset[str]:
        """The names that it computes something of."""
        return self.template.computed

    def of(self, values: Mapping[str, Any]) -> Any:
        """The value."""
        return self.template.fill(values)


Source = Constant | Named | Computed | Filled


def read_source(given: Any, known: Collection[str], where: str) -> Source:
    """Understand what a key is to be set to.

    Args:
        given: a name, arithmetic with names, text with placeholders, or JSON; what is no text is
            a constant.
        known: the parameters of the space and the names that every trial has.
        where: what it is for, for messages, such as "--set output_dir".

    Raises:
        InputError: if it is none of these.
    """
    if not isinstance(given, str):
        return Constant(given)
    text = given.strip()
    if text in known:
        return Named(text)
    try:
        return Constant(json.loads(text))
    except json.JSONDecodeError:
        pass
    template = read_template(given, known, where)
    if template.whole or template.computed:
        return Filled(template)
    try:
        expression = parse(text)
    except InputError as error:
        raise _neither(given, where) from error
    if unknown := sorted(expression.names - set(known)):
        raise InputError(
            f"{where}: there is no {unknown[0]!r}.{did_you_mean(unknown[0], known)} {_TEXT}"
        )
    return Computed(expression)


_TEXT = "A text that is meant as it stands is written as JSON, in double quotes: '\"text\"'."


def _neither(given: str, where: str) -> InputError:
    return InputError(
        f"{where}: expected a parameter, arithmetic with parameters, text with a {{placeholder}} "
        f"or JSON; got {given!r}. {_TEXT}"
    )
