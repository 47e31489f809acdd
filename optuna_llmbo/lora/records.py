"""One example of the data before it is tokenized, by what it consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
import json
from typing import Any
from typing import Protocol

from optuna_llmbo.lora.messages import ASSISTANT
from optuna_llmbo.lora.messages import Message


Stratum = str | int | float | bool | None
"""The value to stratify the proxy by, if it is stratified by a column."""

ALL_TURNS, LAST_TURN = TRAIN_ON = ("all", "last")
"""Which of the assistant's turns of a conversation are trained on."""

DROP, LEFT, RIGHT = TRUNCATIONS = ("drop", "left", "right")
"""What is done with an example that is too long: it is left out, or cut at a side."""


class Record(Protocol):
    """What the splits, the proxy and the metrics read of an example, whatever its format."""

    @property
    def prompt(self) -> str:
        """What is asked last; empty if nothing is."""

    @property
    def response(self) -> str:
        """What is answered last, or the whole text if it is all there is."""

    @property
    def key(self) -> object:
        """Identity of an example: two with equal keys are the same; hashable."""

    @property
    def question(self) -> object:
        """Identity of all that precedes the answer; None if nothing does; hashable."""

    @property
    def stratum(self) -> Stratum:
        """See `Stratum`."""


@dataclass(frozen=True)
class Pair:
    """A prompt, the user's turn, and its response, the assistant's."""

    prompt: str
    response: str
    stratum: Stratum = None
    system: str | None = None
    """The system prompt; None: there is none."""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What else the chat template is given, tools among it."""

    @property
    def key(self) -> tuple[Any, ...]:
        """As `Record.key`."""
        return *self._asked, self.response.strip(), *_written(self.arguments)

    @property
    def question(self) -> tuple[Any, ...]:
        """As `Record.question`."""
        return *self._asked, *_written(self.arguments)

    @property
    def _asked(self) -> tuple[str, ...]:
        system = () if self.system is None else (self.system.strip(),)
        return (*system, self.prompt.strip())

    @property
    def messages(self) -> tuple[Message, ...]:
        """The turns."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return (
            *system,
            {"role": "user", "content": self.prompt},
            {"role": ASSISTANT, "content": self.response},
        )

    @property
    def n_given(self) -> int:
        """As `Conversation.n_given`."""
        return len(self.messages) - 1


@dataclass(frozen=True)
class Conversation:
    """Turns of which the assistant's are trained on."""

    messages: tuple[Message, ...] = field(hash=False)
    n_given: int | None = None
    """How many turns are the prompt, of which nothing is trained on; None: the turns were not
    divided into a prompt and a completion."""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """As `Pair.arguments`."""
    stratum: Stratum = None

    @property
    def last(self) -> int:
        """Index of the assistant's last turn."""
        return max(i for i, turn in enumerate(self.messages) if turn["role"] == ASSISTANT)

    @property
    def prompt(self) -> str:
        """As `Record.prompt`: the content of the turn before the assistant's last one."""
        return str(self.messages[self.last - 1]["content"] or "") if self.last else ""

    @property
    def response(self) -> str:
        """As `Record.response`: the content of the assistant's last turn."""
        return str(self.messages[self.last]["content"] or "")

    @property
    def key(self) -> tuple[str, ...]:
        """As `Record.key`."""
        return (_json(self.messages), *_written(self.arguments))

    @property
    def question(self) -> tuple[str, ...] | None:
        """As `Record.question`."""
        before = self.messages[: self.last]
        return (_json(before), *_written(self.arguments)) if before else None


@dataclass(frozen=True)
class Completion:
    """A plain text and how it goes on, which no chat template touches."""

    prompt: str
    response: str
    stratum: Stratum = None

    @property
    def key(self) -> tuple[str, str]:
        """As `Record.key`."""
        return self.prompt.strip(), self.response.strip()

    @property
    def question(self) -> str:
        """As `Record.question`."""
        return self.prompt.strip()


@dataclass(frozen=True)
class Text:
    """A plain text, all of which is trained on."""

    text: str
    stratum: Stratum = None

    @property
    def prompt(self) -> str:
        """As `Record.prompt`: empty."""
        return ""

    @property
    def response(self) -> str:
        """As `Record.response`: the text."""
        return self.text

    @property
    def key(self) -> str:
        """As `Record.key`."""
        return self.text.strip()

    @property
    def question(self) -> None:
        """As `Record.question`."""
        return None


def with_response(record: Record, response: str) -> Record:
    """The record with another last answer, of which alone anything is trained on."""
    if isinstance(record, Pair | Completion):
        return replace(record, response=response)
    if not isinstance(record, Conversation):
        raise TypeError(f"no answer to replace in {record!r:.80}")
    before = record.messages[: record.last]
    answer = {"role": ASSISTANT, "content": response}
    return replace(record, messages=(*before, answer), n_given=len(before))


def _written(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    return (_json(arguments),) if arguments else ()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
