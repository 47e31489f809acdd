"""Training and validation pairs: read, check, split, sample."""

from __future__ import annotations

from collections.abc import Iterable
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


Source = Any  # datasets.Dataset | path | hub id; an alias so that importing needs no datasets

KNOWN_COLUMNS = (("prompt", "response"), ("instruction", "output"), ("question", "answer"))
VALIDATION_FRACTION = 0.1
MAX_VALIDATION = 128

_BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
_T = TypeVar("_T")


@dataclass(frozen=True)
class Pair:
    """One example: the model reads `prompt` and is trained to answer `response`."""

    prompt: str
    response: str

    @property
    def key(self) -> tuple[str, str]:
        """What makes two examples the same example."""
        return self.prompt.strip(), self.response.strip()


def load_pairs(
    source: Source, *, prompt_column: str | None = None, response_column: str | None = None
) -> list[Pair]:
    """Read all examples of a source.

    Args:
        source: a `datasets.Dataset`, the path of a JSON, JSONL, CSV or Parquet file, a dataset's
            id on the hub (its split "train"), or "stdlib-docstrings".
        prompt_column: default: the first of `KNOWN_COLUMNS` that is there.
        response_column: as `prompt_column`.

    Raises:
        InputError: if there is no such source or column, no rows, or rows without text.
    """
    if isinstance(source, str) and source == STDLIB_DOCSTRINGS:
        return [Pair(prompt, response) for prompt, response in stdlib_docstrings()]
    dataset = _load_dataset(source)
    columns = _choose_columns(dataset.column_names, prompt_column, response_column)
    if len(dataset) == 0:
        raise InputError(f"{source_name(source)} has no rows.")
    prompts, responses = (list(dataset[column]) for column in columns)
    _check_texts(columns[0], prompts)
    _check_texts(columns[1], responses)
    return [Pair(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]


def source_name(source: Source) -> str:
    """A short name of a source for messages and for the study's record."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return path.name if path.is_file() else os.fspath(source)
    return f"a {type(source).__name__}"


def check_disjoint(train: Iterable[Pair], validation: Iterable[Pair]) -> None:
    """Check that no validation example is trained on.

    Raises:
        InputError: with the number of shared examples and the first of them.
    """
    trained = {pair.key for pair in train}
    shared = [pair for pair in validation if pair.key in trained]
    if shared:
        raise InputError(
            f"{len(shared)} of the validation examples are also in the training data, so that "
            f"the loss would reward memorizing. The first: {shared[0].prompt[:80]!r} -> "
            f"{shared[0].response[:80]!r}. Remove them from one of the two."
        )


def validation_count(validation: int | None, n: int) -> int:
    """How many of `n` examples to split off: 10%, at most 128, or the number asked for.

    Raises:
        InputError: if that leaves no training or no validation examples.
    """
    tenth = min(MAX_VALIDATION, max(1, round(VALIDATION_FRACTION * n)))
    count = tenth if validation is None else validation
    if isinstance(count, bool) or not 1 <= count < n:
        raise InputError(
            f"validation={validation!r}: cannot split {count} of {n} usable examples off for "
            f"validation; expected 1 to {n - 1}."
        )
    return count


def split(
    examples: Sequence[_T], keys: Sequence[Any], count: int, seed: int
) -> tuple[list[_T], list[_T]]:
    """Split `count` random examples off for validation.

    Copies of a validation example are in neither part, so that none is trained on.

    Args:
        examples: all of them.
        keys: what makes two examples the same, in the order of `examples`.
        count: number of validation examples, less than the number of examples.
        seed: of the choice.

    Returns:
        Training and validation examples, each in the order of `examples`.

    Raises:
        InputError: if there are not enough different examples.
    """
    first: dict[Any, int] = {}
    for i in _permutation(len(examples), seed, stream=0):
        first.setdefault(keys[i], int(i))
    different = list(first.values())
    validation = sorted(different[:count])
    held_out = {keys[i] for i in validation}
    train = [example for example, key in zip(examples, keys, strict=True) if key not in held_out]
    if len(validation) < count or not train:
        raise InputError(
            f"{len(different)} different examples are too few to split {count} off for validation."
        )
    return train, [examples[i] for i in validation]


def subset(n: int, proxy: float, seed: int) -> list[int]:
    """A random sample without replacement: the proxy that a trial trains on.

    With one seed, a larger proxy contains a smaller one.

    Args:
        n: number of training examples.
        proxy: fraction to take, in (0, 1].
        seed: of the choice.

    Returns:
        round(proxy * n) positions, in random order.

    Raises:
        InputError: if `proxy` is out of range, or takes nothing.
    """
    check_proxy(proxy)
    count = round(proxy * n)
    if count < 1:
        raise InputError(f"proxy={proxy} of {n} training examples is less than one example.")
    return [int(i) for i in _permutation(n, seed, stream=1)[:count]]


def check_proxy(proxy: float) -> None:
    """Check that a proxy is a fraction.

    Raises:
        InputError: if it is not in (0, 1].
    """
    if isinstance(proxy, bool) or not isinstance(proxy, (int, float)) or not 0 < proxy <= 1:
        raise InputError(f"proxy={proxy!r}: expected a fraction above 0 and up to 1.")


def _permutation(n: int, seed: int, stream: int) -> np.ndarray:
    return np.random.default_rng([seed, stream]).permutation(n)


def _load_dataset(source: Source) -> Any:
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
    datasets.disable_progress_bars()  # they would run through a live view
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
    there = f"The columns are: {', '.join(columns) or 'none'}."
    for named in (prompt, response):
        if named is not None and named not in columns:
            raise InputError(f"there is no column {named!r}. {there}")
    detected = next((pair for pair in KNOWN_COLUMNS if set(pair) <= set(columns)), (None, None))
    prompt, response = prompt or detected[0], response or detected[1]
    if prompt is None or response is None:
        known = " or ".join("/".join(pair) for pair in KNOWN_COLUMNS)
        raise InputError(
            f"cannot tell prompts from responses: name prompt_column and response_column, or use "
            f"{known}. {there}"
        )
    if prompt == response:
        raise InputError(f"prompts and responses are both read from the column {prompt!r}.")
    return prompt, response


def _check_texts(column: str, texts: Sequence[Any]) -> None:
    bad = [i for i, text in enumerate(texts) if not (isinstance(text, str) and text.strip())]
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        rows = ", ".join(map(str, bad[:5]))
        raise InputError(
            f"column {column!r} has no text in row {rows}{more} (counted from 0): remove these "
            "rows, or fill them."
        )
