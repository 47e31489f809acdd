"""Choices as text: a shared passage, then a line for the one choice that is read.

A language model reads each choice of a nominal parameter once, apart from all other parameters. So
the passage says what the parameters are, and nothing about numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
import numbers
from typing import Any

from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.space.axis import plain
from optuna_llmbo.space.descriptions import Descriptions
from optuna_llmbo.space.prompt import format_value
from optuna_llmbo.space.search_space import SearchSpace


@dataclass(frozen=True)
class ChoiceTexts:
    """Writes the choices of one search space's nominal parameters as text."""

    space: SearchSpace
    knowledge: Knowledge
    """Of the study's own packs: see `Knowledge.relevant`."""
    descriptions: Descriptions = Descriptions()
    """What the user says of choices; it goes before what the packs say."""
    task: str | None = None
    """What is being optimized, in the user's words."""

    @property
    def names(self) -> tuple[str, ...]:
        """The nominal parameters, sorted."""
        return self.space.nominal

    @cached_property
    def passage(self) -> str:
        """What all choices share: the task, the packs' summaries, the nominal parameters.

        It ends without a line break; `text` begins with one.
        """
        task = f"Task: {self.task.strip()}\n" if self.task else ""
        return f"{task}{self.knowledge.introduction(self.names)}\n\nChoice:".lstrip()

    def text(self, name: str, choice: Any) -> str:
        """Write the line of one choice: the parameter's name, and the choice in words.

        The words are the user's description, else the packs', else the choice itself; a choice of
        several lines is kept whole.

        Args:
            name: a parameter.
            choice: one of its values.
        """
        return f"\n{name}: {self._words(name, choice)}"

    def n_with_letters(self, name: str) -> int:
        """Count the different texts among a parameter's choices that say something in letters.

        A number, True, False and None say nothing unless they are described.

        Args:
            name: a nominal parameter of the space.
        """
        choices = self.space.distributions[name].choices  # type: ignore[attr-defined]
        texts = {
            self._words(name, choice)
            for choice in choices
            if self._described(name, choice) is not None or not _is_wordless(choice)
        }
        return sum(any(map(str.isalpha, text)) for text in texts)

    def _words(self, name: str, choice: Any) -> str:
        described = self._described(name, choice)
        return format_value(plain(choice)) if described is None else described

    def _described(self, name: str, choice: Any) -> str | None:
        own = self.descriptions.find(name, choice)
        return self.knowledge.choice_description(name, choice) if own is None else own


def _is_wordless(choice: Any) -> bool:
    """Whether a choice is a number, a boolean or None: the letters in its text are no words."""
    return choice is None or isinstance(plain(choice), numbers.Number)
