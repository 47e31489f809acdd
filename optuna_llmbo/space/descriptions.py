"""What a user says of choices, to be read in place of their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
import difflib
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution

from optuna_llmbo.errors import InputError
from optuna_llmbo.space.axis import Axis
from optuna_llmbo.space.axis import identity


_EXAMPLE = '{"optimizer": {"lion": "Lion: moves by the sign of its momentum"}}'


@dataclass(frozen=True)
class Descriptions:
    """Sentences about choices, each on one line, by parameter name and choice.

    Choices are compared by type and value: True is not 1.
    """

    by_parameter: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters of which a choice is described."""
        return tuple(self.by_parameter)

    def find(self, name: str, choice: Any) -> str | None:
        """Look up what is said of a choice of the parameter `name`, None if nothing is."""
        given = self.by_parameter.get(name, {})
        same = (words for key, words in given.items() if identity(key) == identity(choice))
        return next(same, None)

    def check(self, name: str, distribution: BaseDistribution) -> None:
        """Check that what is described of the parameter `name` are choices that it has.

        Raises:
            InputError: if the parameter is a number or all its choices are, or if a choice that is
                described is not there.
        """
        if name not in self.by_parameter:
            return
        axis = Axis(distribution)
        if not isinstance(distribution, CategoricalDistribution) or not axis.is_nominal:
            raise InputError(
                f"describe[{name!r}]: the parameter is {axis.values_text}; only choices that are "
                "not numbers can be described. Remove it."
            )
        for choice in self.by_parameter[name]:
            if not axis.contains(choice):
                raise InputError(
                    f"describe[{name!r}] has {choice!r}, which is none of the parameter's choices."
                    f"{_hint(choice, distribution.choices)}"
                )


def read_descriptions(given: Mapping[str, Mapping[Any, str]] | None) -> Descriptions:
    """Check a user's descriptions of choices.

    Args:
        given: parameter name -> choice -> what it means, as text that is not empty; line breaks
            in it count as blanks. None for nothing.

    Returns:
        The descriptions. `Descriptions.check` compares them with the choices that there are.

    Raises:
        InputError: if it is not of that shape.
    """
    if given is None:
        return Descriptions()
    if not isinstance(given, Mapping):
        raise InputError(
            "describe must be a dict from parameter names to dicts of choices, such as "
            f"{_EXAMPLE}; got {given!r}."
        )
    return Descriptions({name: _of_one(name, choices) for name, choices in given.items()})


def _of_one(name: Any, choices: Any) -> dict[Any, str]:
    """Check what is said of one parameter's choices."""
    if not isinstance(name, str):
        raise InputError(
            f"describe must have the names of parameters as keys, such as {_EXAMPLE}; "
            f"got {name!r}."
        )
    if not isinstance(choices, Mapping) or not choices:
        raise InputError(
            f"describe[{name!r}] must be a dict with a description for each of one or more "
            f"choices, such as {_EXAMPLE}; got {choices!r}."
        )
    for choice, words in choices.items():
        if not isinstance(words, str) or not words.strip():
            raise InputError(
                f"describe[{name!r}][{choice!r}] must be a text that is not empty; got {words!r}. "
                "Leave the choice out to have its name read, or what a knowledge pack says of it."
            )
    return {choice: " ".join(words.split()) for choice, words in choices.items()}


def _hint(choice: Any, choices: tuple[Any, ...]) -> str:
    """Suggest the choice nearest in writing, with its type to be seen; else list the choices."""
    written = {str(one): one for one in choices}
    near = difflib.get_close_matches(str(choice), written, n=1)
    if near:
        return f" Did you mean {written[near[0]]!r}?"
    return f" Known are: {', '.join(map(repr, choices))}."
