"""Text with placeholders: `lr={learning_rate}`, `{folder}/output`, `{rank * alpha_ratio}`."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from dataclasses import dataclass
import re
from typing import Any

from optuna_llmbo.command.computed import compute
from optuna_llmbo.command.numbers import value_text
from optuna_llmbo.errors import did_you_mean
from optuna_llmbo.errors import InputError
from optuna_llmbo.knowledge.expression import Expression
from optuna_llmbo.knowledge.expression import parse


_BRACES = re.compile(r"(?P<shell>\$\{[^{}]*\})|\{\{(?P<kept>[^{}]*)\}\}|\{(?P<held>[^{}]+)\}")


@dataclass(frozen=True)
class Template:
    """Text and what is to be put into it.

    Attributes:
        text: the text as it was given.
        pieces: the text in pieces: as it is (a string), a value by name (a tuple with the name),
            or something computed.
    """

    text: str
    pieces: tuple[str | tuple[str] | Expression, ...]

    @property
    def names(self) -> frozenset[str]:
        """The values that it needs, by themselves or in an expression."""
        return self.whole | self.computed

    @property
    def whole(self) -> frozenset[str]:
        """The values that it takes as they are."""
        return frozenset(piece[0] for piece in self.pieces if isinstance(piece, tuple))

    @property
    def computed(self) -> frozenset[str]:
        """The values that it computes something of."""
        parts = [piece.names for piece in self.pieces if isinstance(piece, Expression)]
        return frozenset().union(*parts)

    def fill(self, values: Mapping[str, Any]) -> str:
        """The text with its values.

        Raises:
            InputError: if an expression has no value.
        """
        texts = []
        for piece in self.pieces:
            if isinstance(piece, tuple):
                texts.append(value_text(values[piece[0]]))
            else:
                texts.append(piece if isinstance(piece, str) else _computed(piece, values))
        return "".join(texts)


def _computed(expression: Expression, values: Mapping[str, Any]) -> str:
    return value_text(compute(expression, values))


def read_template(text: str, known: Collection[str], where: str) -> Template:
    """Find the placeholders of a text.

    `{name}` is a value and `{expression}` is computed. `{{name}}` stands for `{name}` itself.
    Braces around anything else, and `${NAME}`, are text.

    Args:
        text: the text.
        known: names that placeholders may have.
        where: what the text is, for messages.

    Raises:
        InputError: if a placeholder has a name that is not known.
    """
    pieces: list[str | tuple[str] | Expression] = []
    end = 0
    for found in _BRACES.finditer(text):
        pieces.append(text[end : found.start()])
        end = found.end()
        if found["kept"] is not None:
            pieces.append("{" + found["kept"] + "}")
        elif found["held"] is not None:
            pieces.append(_held(found["held"].strip(), found[0], known, where))
        else:
            pieces.append(found[0])
    pieces.append(text[end:])
    return Template(text, tuple(piece for piece in pieces if piece != ""))


def _held(
    held: str, whole: str, known: Collection[str], where: str
) -> str | tuple[str] | Expression:
    if held in known:
        return (held,)
    try:
        expression = parse(held)
    except InputError:
        return whole
    if not expression.names:
        return whole
    if unknown := sorted(expression.names - set(known)):
        raise InputError(
            f"{where} has the placeholder {whole}, but there is no {unknown[0]!r}."
            f"{did_you_mean(unknown[0], known)} For the text itself write {{{whole}}}."
        )
    return expression
