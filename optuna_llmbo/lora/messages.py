"""The turns of a conversation as chat templates take them: roles, texts and calls of tools."""

from __future__ import annotations

from collections.abc import Mapping
import json
from typing import Any

from optuna_llmbo.errors import InputError


Message = dict[str, Any]
"""A turn: its "role" and "content", and what else a template may read ("tool_calls", ...)."""

ASSISTANT = "assistant"
ROLES = ("system", "developer", "user", ASSISTANT, "tool")

SPEAKERS = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": ASSISTANT,
    "chatgpt": ASSISTANT,
    "model": ASSISTANT,
    "bot": ASSISTANT,
    "assistant": ASSISTANT,
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "function_call": ASSISTANT,
}
"""Roles by what the key "from" says in the ShareGPT format."""

WEIGHT = "weight"
"""Key of an assistant's turn in OpenAI's format: 0 takes the turn out of the loss, 1 does not."""


def messages_of(value: Any, where: str, *, fills_none: bool = False) -> tuple[Message, ...]:
    """Read the turns of one conversation.

    A turn has "role" and "content", or "from" and "value" as in the ShareGPT format. Keys without
    a value are left out, apart from "content". The arguments of a tool's call that are written as
    JSON, as OpenAI's are, become the object that they say, which is what templates write out.

    Args:
        value: a list of turns.
        where: the column and the row, for messages.
        fills_none: whether keys that a nested object lacks may be there with None, as in Arrow's
            tables; they are left out then.

    Raises:
        InputError: if it is no list of turns, a turn has another role or no text, an assistant's
            turn is empty, or there is no assistant's turn.
    """
    if not isinstance(value, (list, tuple)) or not value:
        raise InputError(
            f"{where} has {value!r:.80}: expected a list of turns, each with role and content (or "
            "from and value)."
        )
    return tuple(_message(turn, f"{where}, turn {i}", fills_none) for i, turn in enumerate(value))


def is_messages(value: Any) -> bool:
    """Whether a value looks like the turns of a conversation."""
    return isinstance(value, (list, tuple)) and all(isinstance(turn, Mapping) for turn in value)


def parsed(value: Any, where: str, *, fills_none: bool = False) -> Any:
    """Read a value that is written as JSON or as the object itself; None if it is empty.

    Raises:
        InputError: if the text is no JSON.
    """
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            return json.loads(value)
        except ValueError as error:
            raise InputError(f"{where} has {value!r:.80}, which is no JSON: {error}.") from error
    value = without_none(value) if fills_none else value
    return value if value else None


def without_none(value: Any) -> Any:
    """A nested value without the keys whose value is None."""
    if isinstance(value, Mapping):
        return {key: without_none(one) for key, one in value.items() if one is not None}
    return [without_none(one) for one in value] if isinstance(value, (list, tuple)) else value


def _message(turn: Any, where: str, fills_none: bool) -> Message:
    if not isinstance(turn, Mapping):
        raise InputError(
            f"{where} is {turn!r:.80}: expected an object with role and content (or from and "
            "value)."
        )
    message = _from_value(turn, where) if "from" in turn else dict(turn)
    if message.get("role") not in ROLES:
        raise InputError(
            f"{where} has the role {message.get('role')!r}: expected one of {', '.join(ROLES)}."
        )
    message["content"] = _text(message.get("content"), where)
    message = {k: v for k, v in message.items() if v is not None or k == "content"}
    if calls := message.get("tool_calls"):
        message["tool_calls"] = [_call(call, where, fills_none) for call in calls]
    if message["role"] == ASSISTANT:
        _check_answer(message, where)
    elif message["content"] is None:
        raise InputError(f"{where} has no content: write what the {message['role']} says.")
    return message


def _from_value(turn: Mapping[str, Any], where: str) -> Message:
    speaker = turn["from"]
    role = SPEAKERS.get(str(speaker).lower())
    if role is None:
        raise InputError(f"{where} is from {speaker!r}: expected one of {', '.join(SPEAKERS)}.")
    rest = {key: value for key, value in turn.items() if key not in ("from", "value")}
    if str(speaker).lower() != "function_call":
        return {"role": role, "content": turn.get("value"), **rest}
    said = parsed(turn.get("value"), where)
    calls = said if isinstance(said, list) else [said]
    wrapped = [{"type": "function", "function": call} for call in calls]
    return {"role": role, "content": "", "tool_calls": wrapped, **rest}


def _text(content: Any, where: str) -> str | None:
    """The text of a turn; parts of a text, as OpenAI's format has them, are put together."""
    if content is None or isinstance(content, str):
        return content
    is_parts = isinstance(content, (list, tuple)) and all(
        isinstance(part, Mapping) for part in content
    )
    if is_parts and all(isinstance(part.get("text"), str) for part in content):
        return "".join(part["text"] for part in content)
    raise InputError(
        f"{where} has the content {content!r:.80}: expected a text, or parts with a text each. "
        "Images and sound cannot be trained on."
    )


def _call(call: Any, where: str, fills_none: bool) -> dict[str, Any]:
    """A call of a tool, its arguments as an object."""
    outer = dict(call) if isinstance(call, Mapping) else {}
    inner = outer.get("function", outer)
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise InputError(
            f"{where} calls the tool {call!r:.80}: expected an object with the name and arguments "
            "of a function."
        )
    about = f"{where}, the arguments of {inner['name']!r}"
    arguments = parsed(inner.get("arguments"), about, fills_none=fills_none) or {}
    function = {**inner, "arguments": arguments}
    return {**outer, "function": function} if "function" in outer else function


def _check_answer(message: Message, where: str) -> None:
    says = (message["content"] or "").strip()
    others = [key for key in ("tool_calls", "reasoning_content", "thinking") if message.get(key)]
    if not says and not others:
        raise InputError(
            f"{where} is an empty turn of the assistant, which would teach it to say nothing: "
            "remove the turn or the row, or fill it."
        )
    if message.get(WEIGHT) not in (None, 0, 1):
        raise InputError(f"{where} has the weight {message[WEIGHT]!r}: expected 0 or 1.")
