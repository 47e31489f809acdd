"""The metrics of a search, as the command line names them."""

from __future__ import annotations

from collections.abc import Mapping
import os
from typing import Any
from typing import TYPE_CHECKING

from optuna_llmbo.errors import InputError


if TYPE_CHECKING:
    import optuna

    from optuna_llmbo.lora.metrics import Measure


OPTION_NAMES = ("metric", "choices", "tests_column")
"""Options that determine what is measured."""

_CHOICE, _CODE = "multiple_choice", "code_pass_at_1"


def measures_of(options: Mapping[str, Any], *, allow_execution: bool = False) -> list[Measure]:
    """The metrics that the options name.

    Args:
        options: options as returned by `options.chosen`.
        allow_execution: whether generated programs may run here. This is a matter of the machine,
            so a study does not record it.

    Raises:
        InputError: if there is no such metric, or an option is missing or unused.
    """
    from optuna_llmbo.lora.metrics import CodePassAt1
    from optuna_llmbo.lora.metrics import from_name
    from optuna_llmbo.lora.metrics import MultipleChoice

    names = _names(options)
    choices, column = options.get("choices"), options.get("tests_column")
    for option, value, name in (("choices", choices, _CHOICE), ("tests-column", column, _CODE)):
        if (value is None) == (name in names):
            verb = "needs" if name in names else "is the only one that reads"
            raise InputError(f"the metric {name!r} {verb} --{option}: give both or neither.")
    measures: list[Measure] = []
    for name in names:
        if name == _CHOICE:
            measures.append(MultipleChoice([one.strip() for one in str(choices).split(",")]))
        elif name == _CODE:
            if not allow_execution:
                raise InputError(
                    f"the metric {name!r} runs programs that a model has written, which can do "
                    "harm: give --allow-execution if this machine may run them, at best in a "
                    "container."
                )
            measures.append(CodePassAt1(_tests(options, str(column)), allow_execution=True))
        else:
            measures.append(from_name(name))
    return measures


def check_same(
    study: optuna.Study, recorded: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    """Check that a resumed study has the same metrics.

    Args:
        study: the study.
        recorded: the options that it was created with.
        options: the options given now.

    Raises:
        InputError: if it is not.
    """
    there, ours = _said(recorded), _said(options)
    if there != ours:
        raise InputError(
            f"the study {study.study_name!r} is a search with {there}, not {ours}: values of "
            "different metrics cannot be compared. Use another study name."
        )


def _names(options: Mapping[str, Any]) -> list[str]:
    named = options.get("metric", "loss")  # studies from before the option existed use the loss
    return [named] if isinstance(named, str) else list(named)


def _said(options: Mapping[str, Any]) -> str:
    """The options as written on the command line."""
    words = [f"--metric {name}" for name in _names(options)]
    for name in OPTION_NAMES[1:]:
        if options.get(name) is not None:
            words.append(f"--{name.replace('_', '-')} {options[name]}")
    return " ".join(words)


def _tests(options: Mapping[str, Any], column: str) -> dict[str, str]:
    """The tests of every prompt, read from a column of all data."""
    from optuna_llmbo.lora.data import load_records

    tests: dict[str, str] = {}
    for name in ("train", "validation", "test"):
        source = options.get(name)
        if isinstance(source, (str, os.PathLike)):
            pairs = load_records(
                source,
                prompt_column=options.get("prompt_column"),
                response_column=column,
                ignore_columns=options.get("ignore_columns", ()),
                is_checked=False,  # the objective's own reading is
            )
            tests |= {pair.prompt: pair.response for pair in pairs}
    return tests
