"""Records -> texts: what the model reads, and where what it is trained on starts and ends."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np

from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.lora.chat_template import has_markers
from optuna_llmbo.lora.chat_template import template_of
from optuna_llmbo.lora.messages import ASSISTANT
from optuna_llmbo.lora.messages import Message
from optuna_llmbo.lora.messages import WEIGHT
from optuna_llmbo.lora.records import ALL_TURNS
from optuna_llmbo.lora.records import Completion
from optuna_llmbo.lora.records import Conversation
from optuna_llmbo.lora.records import Pair
from optuna_llmbo.lora.records import Record
from optuna_llmbo.lora.records import Text


@dataclass(frozen=True)
class Rendered:
    """One record as text, with the texts that precede and end what is trained on."""

    text: str
    spans: tuple[tuple[str, str | None], ...]
    """Of each part that is trained on: the text before it, and the text up to its end; None: the
    end of the whole."""


@dataclass(frozen=True)
class Marked:
    """One record as tokens, of which the template itself marks those to train on."""

    ids: np.ndarray
    """(t,) int32."""
    trained: np.ndarray
    """(t,) bool."""


class Renderer:
    """Writes records as the model reads them, with the tokenizer's chat template.

    What is trained on are the assistant's turns: of a prompt and its answer, all that follows the
    prompt; of several turns, what the template marks with `{% generation %}`, or else what each of
    the assistant's turns adds to the turns before it and the template's invitation to answer.
    TRL's `SFTTrainer` trains on the same, where it can at all.

    Args:
        tokenizer: a tokenizer of `transformers`.
        train_on: "all" of the assistant's turns, or the "last" one.

    Raises:
        InputError: if the tokenizer has no end-of-sequence token.
    """

    def __init__(self, tokenizer: Any, train_on: str = ALL_TURNS) -> None:
        if tokenizer.eos_token_id is None:
            raise InputError(
                "the tokenizer has no end-of-sequence token: set tokenizer.eos_token."
            )
        self._tokenizer = tokenizer
        self._template = template_of(tokenizer)
        self._train_on = train_on

    def __call__(self, record: Record) -> Rendered | Marked:
        """Write a record.

        Raises:
            InputError: if the template cannot write it, leaves its tools out, or does not let
                the assistant's turns be told apart.
        """
        if isinstance(record, Text):
            return Rendered(self._with_end(record.text), (("", None),))
        if isinstance(record, Completion):
            whole = self._with_end(record.prompt + record.response)
            return Rendered(whole, ((record.prompt, None),))
        if isinstance(record, Pair | Conversation):
            return self._of_turns(record)
        raise TypeError(f"no record: {record!r:.80}")

    def _of_turns(self, record: Pair | Conversation) -> Rendered | Marked:
        turns, arguments = record.messages, record.arguments
        whole = self._write(turns, arguments)
        self._check_written(whole, turns, arguments)
        first = record.n_given or 0
        answers = [i for i in range(first, len(turns)) if turns[i]["role"] == ASSISTANT]
        is_one_answer = record.n_given == len(turns) - 1
        if has_markers(self._template) and not is_one_answer:
            return self._marked(turns, arguments, answers)
        spans = tuple(self._span(whole, turns, arguments, i) for i in self._wanted(turns, answers))
        if spans[-1][1] is None:
            whole = self._ended(whole)
        return Rendered(whole, spans)

    def _wanted(self, turns: Sequence[Message], answers: Sequence[int]) -> list[int]:
        """Those of the assistant's turns, given by their indices, which are trained on."""
        chosen = answers if self._train_on == ALL_TURNS else answers[-1:]
        wanted = [i for i in chosen if turns[i].get(WEIGHT) != 0]
        if not wanted:
            raise InputError(
                f"the assistant's last turn has the weight 0 in {turns!r:.80}, so that nothing is "
                "trained on: remove the row, or train on all turns."
            )
        return wanted

    def _span(
        self, whole: str, turns: Sequence[Message], arguments: Mapping[str, Any], index: int
    ) -> tuple[str, str | None]:
        """The text before one turn of the assistant's, and the text up to its end."""
        start = self._write(turns[:index], arguments, invites=True)
        if not whole.startswith(start):
            warn_once(
                "the tokenizer's chat template does not go on from its own prompt with the "
                "answer: the loss starts where the two differ, and what the prompt has beyond "
                "that is not read in training."
            )
        if index == len(turns) - 1:
            return start, None
        end = self._write(turns[: index + 1], arguments)
        if not whole.startswith(end):
            raise InputError(
                "the tokenizer's chat template writes a turn of the assistant's otherwise when "
                f"others follow ({_where_they_part(whole, end)}), so that its turns cannot be "
                "told apart. Train on the last one only (train_on='last', --train-on last), or "
                "give a template that marks them with {% generation %} and {% endgeneration %} "
                "(chat_template=, --chat-template); TRL has one for many models: "
                "trl.chat_template_utils.get_training_chat_template."
            )
        return start, end

    def _marked(
        self, turns: Sequence[Message], arguments: Mapping[str, Any], answers: Sequence[int]
    ) -> Marked:
        out = self._apply(
            turns, arguments, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        ids = np.asarray(out["input_ids"], dtype=np.int32)
        trained = np.asarray(out["assistant_masks"], dtype=bool)
        runs = _runs(trained)
        speaking = [i for i, turn in enumerate(turns) if turn["role"] == ASSISTANT]
        wanted = self._wanted(turns, answers)
        if wanted == speaking and runs:
            return Marked(ids, trained)
        if len(runs) != len(speaking):
            raise InputError(
                f"the chat template marks {len(runs)} parts of a conversation with "
                f"{len(speaking)} turns of the assistant's: expected one each. The conversation: "
                f"{turns!r:.80}"
            )
        chosen = np.zeros_like(trained)
        for index, (start, end) in zip(speaking, runs, strict=True):
            chosen[start:end] = index in wanted
        return Marked(ids, chosen)

    def _write(
        self, turns: Sequence[Message], arguments: Mapping[str, Any], *, invites: bool = False
    ) -> str:
        if not turns:  # most templates read the first one
            return ""
        text: str = self._apply(turns, arguments, tokenize=False, add_generation_prompt=invites)
        return text

    def _apply(self, turns: Sequence[Message], arguments: Mapping[str, Any], **how: Any) -> Any:
        told = [{k: v for k, v in turn.items() if k != WEIGHT} for turn in turns]
        given = {"chat_template": self._template} | dict(arguments)
        try:
            return self._tokenizer.apply_chat_template(told, **given, **how)
        except (jinja2.TemplateError, TypeError, KeyError, ValueError) as error:
            roles = ", ".join(str(turn["role"]) for turn in turns)
            raise InputError(
                f"the tokenizer's chat template cannot render the turns {roles}: {error} Give "
                "another template (chat_template=, --chat-template), or change the data."
            ) from error

    def _check_written(
        self, whole: str, turns: Sequence[Message], arguments: Mapping[str, Any]
    ) -> None:
        """Check that a template writes what it is given."""
        names = [_name(tool) for tool in arguments.get("tools") or ()]
        names += [_name(call) for turn in turns for call in turn.get("tool_calls") or ()]
        if missing := [name for name in names if name not in whole]:
            raise InputError(
                f"the tokenizer's chat template leaves the tool {missing[0]!r} out: give one that "
                "writes tools and their calls (chat_template=, --chat-template)."
            )
        texts = [str(turn["content"] or "").strip() for turn in turns]
        if not whole.strip():
            raise InputError(
                f"the tokenizer's chat template writes nothing of the turns {turns!r:.80}: give "
                "another one (chat_template=, --chat-template)."
            )
        if any(text not in whole for text in texts):
            warn_once(
                "the tokenizer's chat template does not write all texts as they are in the data "
                "(some leave out the reasoning in answers): the model is trained on what the "
                "template writes."
            )

    def _with_end(self, text: str) -> str:
        eos: str = self._tokenizer.eos_token
        return text if text.endswith(eos) else text + eos

    def _ended(self, whole: str) -> str:
        """The turns with an end: a template's own end-of-turn token, or end of sequence."""
        bare = whole.rstrip()
        ends = tuple(self._tokenizer.all_special_tokens)
        return whole if bare.endswith(ends) else bare + str(self._tokenizer.eos_token)


def _name(tool: Any) -> str:
    """Name of a tool, or of the tool that is called."""
    inner = tool.get("function", tool) if isinstance(tool, Mapping) else {}
    return str(inner.get("name", "")) if isinstance(inner, Mapping) else ""


def _runs(trained: np.ndarray) -> list[tuple[int, int]]:
    """Start and end of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], trained.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _where_they_part(whole: str, end: str) -> str:
    same = next(
        (i for i, (a, b) in enumerate(zip(whole, end, strict=False)) if a != b),
        min(len(whole), len(end)),
    )
    return f"{whole[same : same + 30]!r} instead of {end[same : same + 30]!r}"
