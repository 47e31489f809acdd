"""Training and validation pairs: read, check, split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import os
from pathlib import Path
from typing import Any
from typing import TypeVar

import numpy as np

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.stdlib_docstrings import NAME as STDLIB_DOCSTRINGS
from optuna_llmbo.lora.stdlib_docstrings import stdlib_docstrings


DataSource = Any  # datasets.Dataset | path | hub id; an alias so that importing needs no datasets

KNOWN_COLUMNS = (("prompt", "response"), ("instruction", "output"), ("question", "answer"))
VALIDATION_FRACTION = 0.1
MAX_VALIDATION = 128

# Independent random streams of one seed.
VALIDATION_STREAM, PROXY_STREAM, TEST_STREAM, STRATA_STREAM, CLUSTERS_STREAM = range(5)

_BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
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


def load_pairs(
    source: DataSource,
    *,
    prompt_column: str | None = None,
    response_column: str | None = None,
    stratum_column: str | None = None,
) -> list[Pair]:
    """Read all examples of a source.

    Args:
        source: a `datasets.Dataset`, the path of a JSON, JSONL, CSV or Parquet file, a dataset's
            id on the hub (its split "train"), or "stdlib-docstrings".
        prompt_column: None: the first of `KNOWN_COLUMNS` that exists.
        response_column: as `prompt_column`.
        stratum_column: the column to stratify the proxy by, if any.

    Raises:
        InputError: if there is no such source or column, no rows, or rows without text.
    """
    if isinstance(source, str) and source == STDLIB_DOCSTRINGS:
        if stratum_column is not None:
            raise InputError(
                f"{STDLIB_DOCSTRINGS} has no column {stratum_column!r}, nor any other."
            )
        return [Pair(prompt, response) for prompt, response in stdlib_docstrings()]
    dataset = _load_dataset(source)
    columns = _choose_columns(dataset.column_names, prompt_column, response_column)
    _check_column(dataset.column_names, stratum_column)
    if len(dataset) == 0:
        raise InputError(f"{source_name(source)} has no rows.")
    prompts, responses = (list(dataset[column]) for column in columns)
    _check_texts(columns[0], prompts)
    _check_texts(columns[1], responses)
    strata = [None] * len(prompts) if stratum_column is None else list(dataset[stratum_column])
    _check_strata(stratum_column, strata)
    return [Pair(*row) for row in zip(prompts, responses, strata, strict=True)]


def source_name(source: DataSource) -> str:
    """A short name of a source for messages and for the study's record."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return path.name if path.is_file() else os.fspath(source)
    return f"a {type(source).__name__}"


def validation_count(validation: int | None, n: int) -> int:
    """How many of `n` examples to split off: 10%, at most 128, or the number asked for.

    Raises:
        InputError: if that leaves no training or no validation examples.
    """
    tenth = min(MAX_VALIDATION, max(1, round(VALIDATION_FRACTION * n)))
    count = tenth if validation is None else validation
    check_count("validation", validation, count, n)
    return count


def check_count(part: str, asked: Any, count: int, n: int) -> None:
    """Check that `count` of `n` examples can be split off for a part.

    Args:
        part: "validation" or "test".
        asked: what the caller gave, for the message.
        count: how many that means.
        n: how many examples there are.

    Raises:
        InputError: if that leaves no examples on one of the two sides.
    """
    if isinstance(count, bool) or not 1 <= count < n:
        raise InputError(
            f"{part}={asked!r}: cannot split {count} of {n} usable examples off for {part}; "
            f"expected 1 to {n - 1}."
        )


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


def _load_dataset(source: DataSource) -> Any:
    import datasets

    if isinstance(source, datasets.Dataset):
        return source
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(
            f"expected a datasets.Dataset, a path, a hub id or {STDLIB_DOCSTRINGS!r}, got "
            f"a {type(source).__name__}. Of a DatasetDict, pass one split."
        )
    path = Path(source).expanduser()
    builder = _BUILDERS.get(path.suffix.lower())
    if path.exists() and builder is None:
        raise InputError(f"{path} has none of the known suffixes: {', '.join(_BUILDERS)}.")
    if builder is not None and not path.is_file():
        raise InputError(f"there is no data file {str(path)!r}.")
    place, files = (builder, str(path)) if builder else (os.fspath(source), None)
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()  # they would disturb a live view
    try:
        return datasets.load_dataset(place, data_files=files, split="train")
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = next(iter(str(error.__cause__ or error).splitlines()), type(error).__name__)
        raise InputError(
            f"cannot read the data {os.fspath(source)!r}: {reason} Expected a JSON, JSONL, CSV or "
            f"Parquet file, a hub id with a split 'train', or {STDLIB_DOCSTRINGS!r}."
        ) from error
    finally:
        if bars:
            datasets.enable_progress_bars()


def _choose_columns(
    columns: Sequence[str], prompt: str | None, response: str | None
) -> tuple[str, str]:
    for named in (prompt, response):
        _check_column(columns, named)
    detected = next((pair for pair in KNOWN_COLUMNS if set(pair) <= set(columns)), (None, None))
    prompt, response = prompt or detected[0], response or detected[1]
    if prompt is None or response is None:
        known = " or ".join("/".join(pair) for pair in KNOWN_COLUMNS)
        raise InputError(
            f"cannot tell prompts from responses: name prompt_column and response_column, or use "
            f"{known}. {_listed(columns)}"
        )
    if prompt == response:
        raise InputError(f"prompts and responses are both read from the column {prompt!r}.")
    return prompt, response


def _check_column(columns: Sequence[str], named: str | None) -> None:
    if named is not None and named not in columns:
        raise InputError(f"there is no column {named!r}. {_listed(columns)}")


def _listed(columns: Sequence[str]) -> str:
    return f"The columns are: {', '.join(columns) or 'none'}."


def _check_strata(column: str | None, values: Sequence[Any]) -> None:
    known = (str, int, float, bool, type(None))
    bad = next((i for i, value in enumerate(values) if not isinstance(value, known)), None)
    if bad is not None:
        raise InputError(
            f"column {column!r} has {values[bad]!r:.80} in row {bad} (counted from 0): to "
            "stratify by it, its values must be texts, numbers or booleans."
        )


def _check_texts(column: str, texts: Sequence[Any]) -> None:
    bad = [i for i, text in enumerate(texts) if not (isinstance(text, str) and text.strip())]
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        rows = ", ".join(map(str, bad[:5]))
        raise InputError(
            f"column {column!r} has no text in row {rows}{more} (counted from 0): remove these "
            "rows, or fill them."
        )
