"""The chat template that writes turns as one text: the tokenizer's, a file's, or a plain one."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
import re
from typing import Any

import jinja2
import jinja2.ext

from optuna_llmbo.errors import InputError


PLAIN = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + eos_token -}}{%- endgeneration -%}"
    "{%- else -%}{{- message['content'] + '\n' -}}{%- endif -%}"
    "{%- endfor -%}"
)
"""What a model without a chat template gets: each turn's text, one after the other; a line break
ends the turns of all but the assistant, and the end-of-sequence token ends the assistant's."""

TEMPLATE_DAY = datetime.datetime(2024, 7, 26, 12)
"""What chat templates that write the current date are told, so that the same examples have the
same tokens on every day. It is the day that Llama 3.1 and 3.2 write where there is no clock."""

_CLOCK = "strftime_now"  # what `transformers` gives to templates
_MARKER = re.compile(r"\{%-?\s*generation\s*-?%\}")
_TAG = re.compile(r"\{[{%]")


def read_template(source: str | os.PathLike[str]) -> str:
    """Read a chat template: the path of a file (Jinja), or the template itself.

    Raises:
        InputError: if there is no such file, or what it holds is no template.
    """
    text = os.fspath(source)
    if not _TAG.search(text):
        try:
            text = Path(source).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"cannot read the chat template {os.fspath(source)!r}: {error}. Expected the path "
                "of a file with a template in Jinja, or the template itself."
            ) from error
    try:
        # the syntax that `transformers` adds to Jinja's own is a block for this purpose
        jinja2.Environment(extensions=[jinja2.ext.loopcontrols]).parse(_without_markers(text))
    except jinja2.TemplateError as error:
        raise InputError(f"the chat template {os.fspath(source)!r:.80}: {error}.") from error
    if not _TAG.search(text):
        raise InputError(
            f"{os.fspath(source)!r} holds no chat template: it writes nothing of the turns."
        )
    return text


def has_markers(template: str) -> bool:
    """Whether a template marks what the assistant says, with `{% generation %}`."""
    return _MARKER.search(template) is not None


def template_of(tokenizer: Any) -> str:
    """The chat template to write turns with, as of `TEMPLATE_DAY`; `PLAIN` if there is none.

    A tokenizer without a template that begins texts with a token of its own, does so there too.
    """
    if not tokenizer.chat_template:
        begins = tokenizer.bos_token_id is not None and (
            tokenizer.bos_token_id in tokenizer("").input_ids
        )
        return "{{- bos_token -}}" + PLAIN if begins else PLAIN
    template: str = tokenizer.get_chat_template()
    return DAY + template if writes_the_date(tokenizer) else template


def writes_the_date(tokenizer: Any) -> bool:
    """Whether the tokenizer's chat template writes the current date."""
    return bool(tokenizer.chat_template) and _CLOCK in tokenizer.get_chat_template()


def _without_markers(template: str) -> str:
    return re.sub(r"\{%(-?)\s*(end)?generation\s*(-?)%\}", r"{#\1 \3#}", template)


def _day() -> str:
    """A macro that hides the clock of templates: `TEMPLATE_DAY` in the directives of a format."""
    ways = [f"%{flag}{one}" for one in "aAbBcdDeFHIjmMpSTUwxXyYZ" for flag in ("-", "")]
    values = {way: TEMPLATE_DAY.strftime(way) for way in ways}
    filters = "".join(f"|replace({w!r}, {v!r})" for w, v in values.items() if v != w)
    return f"{{%- macro {_CLOCK}(format) -%}}{{{{ format{filters} }}}}{{%- endmacro -%}}"


DAY = _day()
"""Before a template, makes `TEMPLATE_DAY` the current date."""
