"""Which columns of a table make an example, and whether all that belongs to examples is used."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields
from enum import StrEnum
import re
from typing import Any

from optuna_llmbo.errors import InputError


KNOWN_COLUMNS = (("prompt", "response"), ("instruction", "output"), ("question", "answer"))
"""Columns of prompts and responses."""

MESSAGES = ("messages", "conversations", "conversation", "dialog", "dialogue")
"""Columns of whole conversations."""

PROMPT, COMPLETION, TEXT = "prompt", "completion", "text"
"""Columns of TRL's formats besides messages."""

SYSTEM = ("system", "system_prompt", "system_message")
TOOLS, TEMPLATE_ARGUMENTS = "tools", "chat_template_kwargs"
"""Columns that go with conversations and pairs: what the chat template is given besides turns."""

PREFERENCES = {"chosen", "rejected"}

ALPACA_PROMPT, ALPACA_INPUT = "instruction", "input"
"""An input is joined to its instruction, as the Alpaca format says."""

PARTS_OF_EXAMPLES = frozenset(
    """answer answers assistant audio chosen code completion content context conversation
    conversations dialog dialogue documents function functions history image images input inputs
    instruction knowledge messages options output passage persona prompt query question rationale
    reasoning reasoning_content rejected response solution system system_message system_prompt
    target targets text thinking thought thoughts tool_calls tools video videos""".split()
)
"""Names of columns that hold a part of an example in some format."""

_MOST_WORDS_OF_A_LABEL = 5
_ROWS_PER_LABEL = 3
_UNSPACED = r"\u0e00-\u0eff\u3040-\u9fff"  # Thai, Lao, Japanese, Chinese
_DATE_WORD = re.compile(
    r"(mon|tues?|wed(nes)?|thu(rs)?|fri|sat(ur)?|sun)(day)?|jan(uary)?|feb(ruary)?|mar(ch)?|"
    r"apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?|oct(ober)?|nov(ember)?|dec(ember)?|"
    r"am|pm|gmt|utc|of|at",
    re.IGNORECASE,
)


class Kind(StrEnum):
    """What the examples of a table are."""

    MESSAGES = "conversations"
    COMPLETION = "prompts and completions"
    """Turns."""
    PLAIN_COMPLETION = "plain prompts and completions"
    """Texts."""
    PAIR = "prompts and responses"
    TEXT = "texts"


@dataclass(frozen=True)
class Columns:
    """Columns of a table by what they are for; None where there is no such column."""

    kind: Kind
    messages: str | None = None
    prompt: str | None = None
    response: str | None = None
    """The responses, or the completions."""
    input: str | None = None
    """Joined to the prompt after a blank line, where it is not empty."""
    text: str | None = None
    system: str | None = None
    tools: str | None = None
    arguments: str | None = None

    @property
    def used(self) -> set[str]:
        return set(self._named.values())

    @property
    def _named(self) -> dict[str, str]:
        own = [one.name for one in fields(self) if one.name != "kind"]
        named = {name: getattr(self, name) for name in own}
        return {name: column for name, column in named.items() if column is not None}

    def __str__(self) -> str:
        """The format in a line: "conversations (messages, tools)"."""
        return f"{self.kind} ({', '.join(self._named.values())})"


def choose(
    names: Sequence[str],
    prompt: str | None = None,
    response: str | None = None,
    ignored: Collection[str] = (),
) -> Columns:
    """Choose the columns that make an example.

    The first of these that exists: conversations (`MESSAGES`); a prompt and its completion; a
    prompt and its response (`KNOWN_COLUMNS`); a text. Where a prompt or response is named, it is
    that.

    Args:
        names: of all columns.
        prompt: None: the first of `KNOWN_COLUMNS` that exists.
        response: as `prompt`.
        ignored: columns that are not to be read.

    Raises:
        InputError: if there are no such columns.
    """
    for named in (prompt, response):
        check_exists(names, named)
        if named is not None and named in ignored:
            raise InputError(f"the column {named!r} is to be read and to be ignored: choose one.")
    left = [name for name in names if name not in ignored]
    if prompt is None and response is None:
        if turns := next((name for name in MESSAGES if name in left), None):
            return Columns(Kind.MESSAGES, messages=turns, **_beside(left))
        if PROMPT in left and COMPLETION in left:
            return Columns(Kind.COMPLETION, prompt=PROMPT, response=COMPLETION, **_beside(left))
    return _pair_or_text(names, left, prompt, response)


def _pair_or_text(
    names: Sequence[str], left: Sequence[str], prompt: str | None, response: str | None
) -> Columns:
    is_named = prompt is not None or response is not None
    whole_first = sorted(KNOWN_COLUMNS, key=lambda pair: not set(pair) <= set(names))
    for known_prompt, known_response in whole_first:
        if (prompt or known_prompt in left) and (response or known_response in left):
            prompt, response = prompt or known_prompt, response or known_response
    if prompt is None or response is None:
        if TEXT in left and not is_named:
            return Columns(Kind.TEXT, text=TEXT)
        raise _unknown(names)
    if prompt == response:
        raise InputError(f"prompts and responses are both read from the column {prompt!r}.")
    others = [name for name in left if name not in (prompt, response)]
    has_input = prompt == ALPACA_PROMPT and ALPACA_INPUT in others
    joined = ALPACA_INPUT if has_input else None
    return Columns(Kind.PAIR, prompt=prompt, response=response, input=joined, **_beside(others))


def _beside(left: Sequence[str]) -> dict[str, str]:
    """Columns with what the chat template is given besides the turns."""
    system = next((name for name in SYSTEM if name in left), None)
    tools = TOOLS if TOOLS in left else None
    arguments = TEMPLATE_ARGUMENTS if TEMPLATE_ARGUMENTS in left else None
    found = {"system": system, "tools": tools, "arguments": arguments}
    return {name: column for name, column in found.items() if column is not None}


def _unknown(names: Sequence[str]) -> InputError:
    if set(names) >= PREFERENCES:
        return InputError(
            "the data are preferences (chosen, rejected), which DPO is trained on: search with "
            f"`optuna-llmbo tune --trl dpo.yaml`. {_listed(names)}"
        )
    known = ", ".join("/".join(pair) for pair in KNOWN_COLUMNS)
    return InputError(
        f"cannot tell what the examples are: expected {MESSAGES[0]} or {MESSAGES[1]} (lists of "
        f"turns), {PROMPT}/{COMPLETION}, {known} or {TEXT}; or name prompt_column and "
        f"response_column (--prompt-column, --response-column). {_listed(names)}"
    )


def check_exists(names: Sequence[str], named: str | None) -> None:
    """Raise InputError if a column is named that does not exist."""
    if named is not None and named not in names:
        raise InputError(f"there is no column {named!r}. {_listed(names)}")


def looks_like_part_of_examples(name: str, values: Sequence[Any]) -> bool:
    """Whether a column looks as if it held a part of the examples, rather than facts about them.

    It does if it holds texts (also inside lists and objects) or binary data, unless these are

    - numbers, dates, addresses or identifiers: no piece between spaces is a word; or
    - labels: at most five words each, shared by at least three rows on average;

    and in any case if its name is one of `PARTS_OF_EXAMPLES` and it holds texts at all.
    """
    texts = [leaf for value in values for leaf in _leaves(value)]
    if not texts:
        return False
    if name.lower() in PARTS_OF_EXAMPLES or any(isinstance(text, bytes) for text in texts):
        return True
    is_id = name.lower() == "id" or name.lower().endswith(("_id", "-id"))
    if is_id and all(len(text.split()) == 1 for text in texts):
        return False
    different = set(texts)
    if not any(_has_words(text) for text in different):
        return False
    is_short = all(len(_pieces(text)) <= _MOST_WORDS_OF_A_LABEL for text in different)
    return not (is_short and len(different) <= max(1, len(texts) // _ROWS_PER_LABEL))


def check_all_used(where: str, unused: Mapping[str, Sequence[Any]]) -> None:
    """Check that no column is left out that looks as if it held a part of the examples.

    Args:
        where: the source, for the message.
        unused: values of the columns that are neither read nor declared as ignored, by name.

    Raises:
        InputError: naming the columns.
    """
    bad = {name: v for name, v in unused.items() if looks_like_part_of_examples(name, v)}
    if bad:
        shown = ", ".join(f"{name!r} ({_first(values)!r:.60})" for name, values in bad.items())
        flags = " ".join(f"--ignore-column {name}" for name in bad)
        raise InputError(
            f"{where} has columns that look like parts of its examples and would not be read: "
            f"{shown}. Join them to the prompts or responses in the data, or say that they are to "
            f"be ignored: ignore_columns={list(bad)} ({flags})."
        )


def _leaves(value: Any) -> Iterator[Any]:
    """All texts and binary data in a value that are not empty."""
    if isinstance(value, (str, bytes)):
        if value.strip():
            yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _leaves(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _leaves(one)


def _first(values: Sequence[Any]) -> Any:
    return next(leaf for value in values for leaf in _leaves(value))


def _pieces(text: str) -> list[str]:
    """Pieces between spaces; characters of scripts without spaces count one by one."""
    return re.findall(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+", text)


def _has_words(text: str) -> bool:
    bare = (piece.strip(".,;:!?()[]{}'\"") for piece in text.split())
    return any(
        piece and (piece.isalpha() or not piece.isascii()) and not _DATE_WORD.fullmatch(piece)
        for piece in bare
    )


def _listed(names: Sequence[str]) -> str:
    return f"The columns are: {', '.join(names) or 'none'}."
