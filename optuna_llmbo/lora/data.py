"""Training and validation pairs: read, check, split."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence
from dataclasses import dataclass
import math
import numbers
from typing import Any
from typing import TypeVar

import numpy as np

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import columns
from optuna_llmbo.lora.table import DataSource
from optuna_llmbo.lora.table import open_table
from optuna_llmbo.lora.table import Table


VALIDATION_FRACTION = 0.1
MAX_VALIDATION = 128

# Independent random streams of one seed.
VALIDATION_STREAM, PROXY_STREAM, TEST_STREAM, STRATA_STREAM, CLUSTERS_STREAM = range(5)

_T = TypeVar("_T")


@dataclass(frozen=True)
class Pair:
    """One example: the model reads `prompt` and is trained to answer `response`."""

    prompt: str
    response: str
    stratum: str | int | float | bool | None = None
    """The value to stratify the proxy by, if it is stratified by a column."""

    @property
    def key(self) -> tuple[str, str]:
        """Identity of an example: two with equal keys are the same."""
        return self.prompt.strip(), self.response.strip()


def load_pairs(source: DataSource, **columns: Any) -> list[Pair]:
    """Read all examples of a source.

    Args:
        source: as `open_table` takes it.
        **columns: as `pairs_of` takes them.

    Raises:
        InputError: as `open_table` and `pairs_of`.
    """
    return pairs_of(open_table(source), **columns)


def pairs_of(
    table: Table,
    *,
    prompt_column: str | None = None,
    response_column: str | None = None,
    ignore_columns: Collection[str] = (),
    stratum_column: str | None = None,
    is_checked: bool = True,
) -> list[Pair]:
    """Read all examples of a table.

    Args:
        table: of n rows.
        prompt_column: None: the first of `columns.KNOWN_COLUMNS` that exists. To a column
            "instruction" the column "input" is joined, after a blank line, where it is not empty.
        response_column: as `prompt_column`.
        ignore_columns: columns that may hold a part of the examples and are not to be read; some
            of them may be missing.
        stratum_column: the column to stratify the proxy by, if any.
        is_checked: check that the other columns hold no part of the examples.

    Returns:
        n pairs.

    Raises:
        InputError: if there is no such column, no rows, rows without text, or a column that is not
            used and looks like a part of the examples.
    """
    chosen = columns.choose(table.names, prompt_column, response_column, ignore_columns)
    columns.check_exists(table.names, stratum_column)
    if table.n_rows == 0:
        raise InputError(f"{table.source} has no rows.")
    known = {*chosen.used, *ignore_columns, stratum_column}
    if is_checked:
        unused = {name: table.stored(name) for name in table.names if name not in known}
        columns.check_all_used(table.source, unused)
    prompts, responses = _texts(table, chosen.prompt), _texts(table, chosen.response)
    if chosen.input is not None:
        prompts = _joined(prompts, _texts_or_none(table, chosen.input))
    strata = [None] * table.n_rows if stratum_column is None else table.column(stratum_column)
    _check_strata(stratum_column, strata)
    return [Pair(*row) for row in zip(prompts, responses, strata, strict=True)]


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


def _texts(table: Table, column: str) -> list[str]:
    """The texts of a column that is to have one in every row."""
    texts = _texts_or_none(table, column)
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
                "conversations are not read, only pairs of a prompt and a response"
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
