"""Training and validation examples: read, check, split."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence
import math
import numbers
from typing import Any
from typing import TypeVar

import numpy as np

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import columns
from optuna_llmbo.lora.columns import Columns
from optuna_llmbo.lora.columns import Kind
from optuna_llmbo.lora.messages import ASSISTANT
from optuna_llmbo.lora.messages import is_messages
from optuna_llmbo.lora.messages import Message
from optuna_llmbo.lora.messages import messages_of
from optuna_llmbo.lora.messages import parsed
from optuna_llmbo.lora.messages import WEIGHT
from optuna_llmbo.lora.records import Completion
from optuna_llmbo.lora.records import Conversation
from optuna_llmbo.lora.records import Pair
from optuna_llmbo.lora.records import Record
from optuna_llmbo.lora.records import Text
from optuna_llmbo.lora.table import DataSource
from optuna_llmbo.lora.table import open_table
from optuna_llmbo.lora.table import Table


VALIDATION_FRACTION = 0.1
MAX_VALIDATION = 128

# Independent random streams of one seed.
VALIDATION_STREAM, PROXY_STREAM, TEST_STREAM, STRATA_STREAM, CLUSTERS_STREAM = range(5)

_T = TypeVar("_T")


def load_records(source: DataSource, **columns: Any) -> list[Record]:
    """Read all examples of a source.

    Args:
        source: as `open_table` takes it.
        **columns: as `records_of` takes them.

    Raises:
        InputError: as `open_table` and `records_of`.
    """
    return records_of(open_table(source), **columns)


def records_of(
    table: Table,
    *,
    prompt_column: str | None = None,
    response_column: str | None = None,
    ignore_columns: Collection[str] = (),
    stratum_column: str | None = None,
    is_checked: bool = True,
) -> list[Record]:
    """Read all examples of a table.

    Args:
        table: of n rows.
        prompt_column: None: as `columns.choose` recognizes the format. To a column "instruction"
            the column "input" is joined, after a blank line, where it is not empty.
        response_column: as `prompt_column`.
        ignore_columns: columns that may hold a part of the examples and are not to be read; some
            of them may be missing.
        stratum_column: the column to stratify the proxy by, if any.
        is_checked: check that the other columns hold no part of the examples.

    Returns:
        n examples.

    Raises:
        InputError: if the format is unknown, there are no rows, rows are not in the format, or a
            column that is not used looks like a part of the examples.
    """
    chosen = columns_of(
        table,
        prompt_column=prompt_column,
        response_column=response_column,
        ignore_columns=ignore_columns,
    )
    columns.check_exists(table.names, stratum_column)
    if table.n_rows == 0:
        raise InputError(f"{table.source} has no rows.")
    known = {*chosen.used, *ignore_columns, stratum_column}
    if is_checked:
        unused = {name: table.stored(name) for name in table.names if name not in known}
        columns.check_all_used(table.source, unused)
    strata = [None] * table.n_rows if stratum_column is None else table.column(stratum_column)
    _check_strata(stratum_column, strata)
    return _READERS[chosen.kind](table, chosen, strata)


def columns_of(
    table: Table,
    *,
    prompt_column: str | None = None,
    response_column: str | None = None,
    ignore_columns: Collection[str] = (),
) -> columns.Columns:
    """The columns that `records_of` reads, by what they are for; the arguments are its own.

    Plain prompts and completions have no use for what goes to a chat template.

    Raises:
        InputError: if the format is unknown.
    """
    chosen = columns.choose(table.names, prompt_column, response_column, ignore_columns)
    if chosen.kind is Kind.COMPLETION and not _holds_turns(table, chosen):
        return Columns(Kind.PLAIN_COMPLETION, prompt=chosen.prompt, response=chosen.response)
    return chosen


def is_size(source: Any) -> bool:
    """Whether a validation or test source is a number of examples, or a fraction of them."""
    return isinstance(source, numbers.Real)


def validation_count(validation: float | None, n: int, whole: int | None = None) -> int:
    """How many of `n` examples to split off: 10%, at most 128, or as asked for.

    Args:
        validation: None, a number of examples, or a fraction of `whole`.
        n: how many examples there are.
        whole: how many there were before a test set was split off; None: `n`.

    Raises:
        InputError: if that leaves no training or no validation examples.
    """
    if validation is None:
        tenth = min(MAX_VALIDATION, max(1, round(VALIDATION_FRACTION * n)))
        return checked_count("validation", tenth, n)
    return checked_count("validation", validation, n, whole)


def checked_count(part: str, asked: float, n: int, whole: int | None = None) -> int:
    """How many of `n` examples to split off for a part.

    Args:
        part: "validation" or "test".
        asked: a number of examples; or a fraction in (0, 1) of `whole`, rounded to the nearest
            number of examples.
        n: how many examples there are.
        whole: what the fraction is of; None: `n`.

    Raises:
        InputError: if that is neither, or leaves no examples on one of the two sides.
    """
    is_count = isinstance(asked, numbers.Integral) and not isinstance(asked, bool)
    if not is_count and not 0 < asked < 1 or isinstance(asked, bool):
        raise InputError(
            f"{part}={asked!r}: expected a number of examples (an integer from 1), a fraction of "
            "them above 0 and below 1, or data."
        )
    count = int(asked) if is_count else round(asked * (n if whole is None else whole))
    if not 1 <= count < n:
        raise InputError(
            f"{part}={asked!r}: cannot split {count} of {n} usable examples off for {part}; "
            f"expected 1 to {n - 1}."
        )
    return count


def split(
    examples: Sequence[_T],
    keys: Sequence[Any],
    count: int,
    seed: int,
    part: str = "validation",
) -> tuple[list[_T], list[_T]]:
    """Split off `count` random examples, for validation or test.

    Copies of an example that is split off are dropped, so that none is trained on.

    Args:
        examples: all of them.
        keys: identities of the examples, in the order of `examples`.
        count: how many; less than the number of examples.
        seed: seed of the choice.
        part: "validation" or "test"; each has its own random stream.

    Returns:
        The remaining examples and those split off, each in the order of `examples`.

    Raises:
        InputError: if there are not enough different examples.
    """
    first: dict[Any, int] = {}
    stream = VALIDATION_STREAM if part == "validation" else TEST_STREAM
    for i in permutation(len(examples), seed, stream):
        first.setdefault(keys[i], int(i))
    different = list(first.values())
    held_out = sorted(different[:count])
    gone = {keys[i] for i in held_out}
    rest = [example for example, key in zip(examples, keys, strict=True) if key not in gone]
    if len(held_out) < count or not rest:
        raise InputError(
            f"{len(different)} different examples are too few to split {count} off for {part}."
        )
    return rest, [examples[i] for i in held_out]


def permutation(n: int, seed: int, stream: int) -> np.ndarray:
    """(n,) permutation of 0 to n - 1, determined by seed and stream."""
    return np.random.default_rng([seed, stream]).permutation(n)


def _pairs(table: Table, chosen: Columns, strata: Sequence[Any]) -> list[Record]:
    prompts, responses = _texts(table, chosen.prompt), _texts(table, chosen.response)
    if chosen.input is not None:
        prompts = _joined(prompts, _texts_or_none(table, chosen.input))
    systems, arguments = _systems(table, chosen), _arguments(table, chosen)
    rows = zip(prompts, responses, strata, systems, arguments, strict=True)
    return [Pair(*row) for row in rows]


def _conversations(table: Table, chosen: Columns, strata: Sequence[Any]) -> list[Record]:
    systems, arguments = _systems(table, chosen), _arguments(table, chosen)
    records: list[Record] = []
    for row, turns in enumerate(_turns(table, chosen.messages)):
        turns = _with_system(turns, systems[row], f"row {row} (counted from 0)")
        _check_answered(turns, f"column {chosen.messages!r}, row {row} (counted from 0)")
        records.append(Conversation(turns, None, arguments[row], strata[row]))
    return records


def _completions(table: Table, chosen: Columns, strata: Sequence[Any]) -> list[Record]:
    systems, arguments = _systems(table, chosen), _arguments(table, chosen)
    both = zip(_turns(table, chosen.prompt), _turns(table, chosen.response), strict=True)
    records: list[Record] = []
    for row, (prompt, completion) in enumerate(both):
        _check_answered(completion, f"column {chosen.response!r}, row {row} (counted from 0)")
        prompt = _with_system(prompt, systems[row], f"row {row} (counted from 0)")
        turns = (*prompt, *completion)
        records.append(Conversation(turns, len(prompt), arguments[row], strata[row]))
    return records


def _plain_completions(table: Table, chosen: Columns, strata: Sequence[Any]) -> list[Record]:
    prompts, responses = _texts(table, chosen.prompt), _texts(table, chosen.response)
    return [Completion(*row) for row in zip(prompts, responses, strata, strict=True)]


def _plain_texts(table: Table, chosen: Columns, strata: Sequence[Any]) -> list[Record]:
    texts = _texts(table, chosen.text)
    return [Text(*row) for row in zip(texts, strata, strict=True)]


_READERS: dict[Kind, Callable[[Table, Columns, Sequence[Any]], list[Record]]] = {
    Kind.PAIR: _pairs,
    Kind.MESSAGES: _conversations,
    Kind.COMPLETION: _completions,
    Kind.PLAIN_COMPLETION: _plain_completions,
    Kind.TEXT: _plain_texts,
}


def _holds_turns(table: Table, chosen: Columns) -> bool:
    """Whether prompts and completions are lists of turns; the first row says what all are."""
    return table.n_rows > 0 and is_messages(table.column(str(chosen.prompt))[0])


def _turns(table: Table, column: str | None) -> list[tuple[Message, ...]]:
    return [
        messages_of(
            value, f"column {column!r}, row {row} (counted from 0)", fills_none=table.fills_none
        )
        for row, value in enumerate(table.column(str(column)))
    ]


def _with_system(
    turns: tuple[Message, ...], system: str | None, where: str
) -> tuple[Message, ...]:
    if system is None:
        return turns
    if turns[0]["role"] == "system":
        raise InputError(
            f"{where} has a system prompt in a column of its own and another in its first turn: "
            "remove one of them, or say that the column is to be ignored (--ignore-column)."
        )
    return ({"role": "system", "content": system}, *turns)


def _check_answered(turns: Sequence[Message], where: str) -> None:
    trained = [turn for turn in turns if turn["role"] == ASSISTANT and turn.get(WEIGHT) != 0]
    if not trained:
        raise InputError(
            f"{where} has no turn of the assistant to train on: remove the row, or add one."
        )


def _systems(table: Table, chosen: Columns) -> Sequence[str | None]:
    if chosen.system is None:
        return [None] * table.n_rows
    return _texts_or_none(table, chosen.system)


def _arguments(table: Table, chosen: Columns) -> list[dict[str, Any]]:
    """What the chat template of each row is given besides its turns."""
    found: list[dict[str, Any]] = [{} for _ in range(table.n_rows)]
    for column in (chosen.arguments, chosen.tools):
        for row, value in enumerate(table.column(column) if column is not None else []):
            where = f"column {column!r}, row {row} (counted from 0),"
            told = parsed(value, where, fills_none=table.fills_none)
            if told is not None and column == chosen.tools:
                _check_is(told, list, "a list of tools", where)
                found[row]["tools"] = told
            elif told is not None:
                _check_is(told, dict, "an object with arguments of the chat template", where)
                found[row] |= told
    return found


def _check_is(value: Any, kind: type, expected: str, where: str) -> None:
    if not isinstance(value, kind):
        raise InputError(f"{where} has {value!r:.80}: expected {expected}.")


def _texts(table: Table, column: str | None) -> list[str]:
    """The texts of a column that is to have one in every row."""
    texts = _texts_or_none(table, str(column))
    bad = [i for i, text in enumerate(texts) if text is None]
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        rows = ", ".join(map(str, bad[:5]))
        raise InputError(
            f"column {column!r} has no text in row {rows}{more} (counted from 0): remove these "
            "rows, or fill them."
        )
    return [text for text in texts if text is not None]


def _texts_or_none(table: Table, column: str) -> list[str | None]:
    """The texts of a column; None where there is no text, or one of spaces only."""
    values = table.column(column)
    for row, value in enumerate(values):
        is_missing = value is None or (isinstance(value, float) and math.isnan(value))
        if not (is_missing or isinstance(value, str)):
            what = (
                "whole conversations are read from a column 'messages', or from 'prompt' and "
                "'completion'"
                if isinstance(value, (list, tuple, dict))
                else "write it as the text that the model is to read or answer"
            )
            raise InputError(
                f"column {column!r} has {value!r:.80} in row {row} (counted from 0), which is no "
                f"text but of type {type(value).__name__}: {what}."
            )
    return [value if isinstance(value, str) and value.strip() else None for value in values]


def _joined(prompts: Sequence[str], inputs: Sequence[str | None]) -> list[str]:
    """Instructions with their inputs, after a blank line."""
    return [
        prompt if more is None else f"{prompt}\n\n{more}"
        for prompt, more in zip(prompts, inputs, strict=True)
    ]


def _check_strata(column: str | None, values: Sequence[Any]) -> None:
    known = (str, int, float, bool, type(None))
    bad = next((i for i, value in enumerate(values) if not isinstance(value, known)), None)
    if bad is not None:
        raise InputError(
            f"column {column!r} has {values[bad]!r:.80} in row {bad} (counted from 0): to "
            "stratify by it, its values must be texts, numbers or booleans."
        )
