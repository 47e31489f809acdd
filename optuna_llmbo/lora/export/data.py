"""The training data for a tool: a script that makes them, or the data themselves.

Prompts and responses are made by a script, which the user can read and change. What a script could
not make without this package (conversations, other masks, cut examples) is written out: each
example with the tokens that a trial trains on.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import json
from typing import Any

import numpy as np

from optuna_llmbo.embedding.language_model import quiet_transformers
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import examples
from optuna_llmbo.lora import splits
from optuna_llmbo.lora.chat_template import read_template
from optuna_llmbo.lora.chat_template import template_of
from optuna_llmbo.lora.export.dataset_script import dataset_script
from optuna_llmbo.lora.export.facts import check_data
from optuna_llmbo.lora.export.facts import Facts
from optuna_llmbo.lora.options import ObjectiveOptions
from optuna_llmbo.lora.tokens import Example
from optuna_llmbo.lora.tokens import IGNORED


TEMPLATE_FILE = "chat_template.jinja"

_SCRIPT = "make_data.py"
_LAYOUTS = {"conversation": "tokens"}  # of a script -> of what is written out


def data_files(facts: Facts, tool: str, layout: str) -> dict[str, str]:
    """The files by name: a script, or the data and the chat template that wrote them.

    Args:
        facts: where the data are, and what the loss is on.
        tool: its name.
        layout: "conversation" for tools that apply the chat template themselves, which get ids and
            labels where the data are written out; "rendered" or "segments" for those that take
            texts.

    Raises:
        InputError: if the data exist only in this package, cannot be read, or do not come back
            as the same tokens from texts.
    """
    if not facts.is_written_out:
        return {_SCRIPT: dataset_script(facts, tool, layout)}
    check_data(facts)
    tokenizer = _tokenizer(facts)
    parts = _parts(facts, tokenizer)
    row = _ROWS[_LAYOUTS.get(layout, layout)]
    files = {
        f"data/{name}.jsonl": "".join(
            json.dumps(row(example, tokenizer, tool), ensure_ascii=False) + "\n"
            for example in some
        )
        for name, some in parts.items()
    }
    return files | {TEMPLATE_FILE: tokenizer.chat_template or template_of(tokenizer)}


def commands(facts: Facts, training: str) -> tuple[str, ...]:
    """What to run, one command after the other."""
    made = () if facts.is_written_out else (f"python {_SCRIPT}",)
    return (*made, training)


def _tokenizer(facts: Facts) -> Any:
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(facts.model)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot load the tokenizer of {facts.model!r}, with which the data are written: "
            f"{error}"
        ) from error
    if facts.chat_template is not None:
        tokenizer.chat_template = read_template(facts.chat_template)
    return tokenizer


def _parts(facts: Facts, tokenizer: Any) -> dict[str, list[Example]]:
    """Training examples, and validation examples if there are to be some: those of the trials."""
    options = ObjectiveOptions(
        facts.model,
        facts.train,
        validation=facts.validation,
        test=facts.test,
        prompt_column=facts.prompt_column,
        response_column=facts.response_column,
        ignore_columns=facts.ignore_columns,
        max_length=facts.max_length,
        truncation=facts.truncation,
        train_on=facts.train_on,
        seed=facts.seed,
    )
    usable = examples.read(options).encode(tokenizer, options)
    if facts.validation is None:
        return {"train": usable[splits.TRAIN]}
    parts = splits.hold_out(usable, facts.validation, facts.test, facts.seed)
    return {"train": parts[splits.TRAIN], "validation": parts[splits.VALIDATION]}


def _tokens(example: Example, tokenizer: Any, tool: str) -> dict[str, Any]:
    labels = np.where(example.trained, example.ids, IGNORED)
    return {"input_ids": example.ids.tolist(), "labels": labels.tolist()}


def _segments(example: Example, tokenizer: Any, tool: str) -> dict[str, Any]:
    pieces = _pieces(example, tokenizer, tool)
    return {"segments": [{"label": label, "text": text} for label, text in pieces]}


def _rendered(example: Example, tokenizer: Any, tool: str) -> dict[str, Any]:
    """What is asked and what is answered in turn, as ShareGPT's format has it."""
    pieces = _pieces(example, tokenizer, tool)
    if not pieces[-1][0]:  # nothing of what follows the last answer is trained on
        pieces = pieces[:-1]
    speakers = {False: "human", True: "gpt"}
    return {"conversations": [{"from": speakers[label], "value": text} for label, text in pieces]}


_ROWS: dict[str, Callable[[Example, Any, str], dict[str, Any]]] = {
    "tokens": _tokens,
    "segments": _segments,
    "rendered": _rendered,
}


def _pieces(example: Example, tokenizer: Any, tool: str) -> list[tuple[bool, str]]:
    """The text in pieces, each with whether it is trained on, in turn: the first one is not.

    Raises:
        InputError: if the tokenizer does not make the same tokens of them one by one.
    """
    bounds = np.flatnonzero(np.diff(example.trained)) + 1
    runs = np.split(example.ids, bounds)
    texts = [tokenizer.decode(run, clean_up_tokenization_spaces=False) for run in runs]
    again = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    if [i for ids in again for i in ids] != example.ids.tolist():
        raise InputError(
            f"the example {example.record.prompt[:60]!r} has other tokens when {tool} reads it in "
            "pieces: export to trl, which gets the tokens themselves."
        )
    return list(zip(_in_turn(len(texts)), texts, strict=True))


def _in_turn(n: int) -> Sequence[bool]:
    return [bool(i % 2) for i in range(n)]
