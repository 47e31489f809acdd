"""Rows of any data for any trainer: a proxy, and rows that are held out. A row is its content."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
from dataclasses import dataclass
import hashlib
import json
from typing import Any
from typing import TYPE_CHECKING

from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.lora import data
from optuna_llmbo.lora import proxy as proxies
from optuna_llmbo.lora import splits
from optuna_llmbo.lora.table import DataSource
from optuna_llmbo.lora.table import open_table


if TYPE_CHECKING:
    import datasets


RowSource = DataSource | Callable[[], "datasets.Dataset"]
"""As `open_table` takes it, or a function that returns a data set."""


@dataclass(frozen=True)
class Rows:
    """Disjoint parts of the data."""

    pool: datasets.Dataset
    """All training rows; the proxy of k rows is the first k."""
    n_proxy: int
    validation: datasets.Dataset
    test: datasets.Dataset | None
    """Read by no trial; None if there is no test set."""

    @property
    def train(self) -> datasets.Dataset:
        """The proxy, which every trial trains on."""
        return self.pool.select(range(self.n_proxy))

    @property
    def fraction(self) -> float:
        """Fraction of the training rows in the proxy, in (0, 1]."""
        return self.n_proxy / len(self.pool)


def rows_of(
    train: RowSource,
    validation: RowSource | float | None,
    test: RowSource | float | None,
    *,
    proxy: float,
    proxy_by: str,
    seed: int,
) -> Rows:
    """Read the data and divide them, as `LoRAObjective` does.

    Args:
        train: the training data.
        validation: data; or the number or fraction of rows to split off `train`; None: 10% of what
            the test leaves, at most 128.
        test: data; or the number or fraction to split off `train`, before validation; None: none.
        proxy: a fraction of the training rows, or their number.
        proxy_by: "random", "length" (in characters) or the name of a column.
        seed: seed of all of it.

    Raises:
        InputError: if data cannot be read, rows are in two parts, or there are not enough.
    """
    parts = {splits.TRAIN: dataset_of(train)}
    for name, source in ((splits.VALIDATION, validation), (splits.TEST, test)):
        if source is not None and not data.is_size(source):
            parts[name] = dataset_of(source)
    keys = {name: keys_of(part) for name, part in parts.items()}
    _check_leaks(keys)
    whole, left = parts[splits.TRAIN], list(range(len(parts[splits.TRAIN])))
    for name, asked in ((splits.TEST, test), (splits.VALIDATION, validation)):
        if name in parts or (name == splits.TEST and asked is None):
            continue
        count = _count(name, asked, len(left), len(whole))
        left, held_out = _split(left, keys[splits.TRAIN], count, seed, name)
        parts[name] = whole.select(held_out)
    splits.warn_of_small_parts(parts)
    pool = whole.select(left)
    order = _order(pool, [keys[splits.TRAIN][i] for i in left], proxy_by, seed)
    return Rows(
        pool.select(order),
        proxies.count(proxy, len(pool)),
        parts[splits.VALIDATION],
        parts.get(splits.TEST),
    )


def dataset_of(source: RowSource) -> datasets.Dataset:
    """A source as a data set.

    Raises:
        InputError: if it cannot be read, or has no rows.
    """
    import datasets

    made = source() if callable(source) else source
    if not isinstance(made, datasets.Dataset):
        table = open_table(made)
        made = datasets.Dataset.from_dict({name: list(table.column(name)) for name in table.names})
    if len(made) == 0:
        raise InputError("the data have no rows.")
    return made.with_format(None)


@contextlib.contextmanager
def no_bars() -> Iterator[None]:
    """Context without the progress bars of `datasets`, which would disturb a live view."""
    import datasets

    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if bars:
            datasets.enable_progress_bars()


def keys_of(dataset: datasets.Dataset) -> list[str]:
    """(n,) what identifies each row: its content, whatever the order of its columns."""
    return [json.dumps(row, sort_keys=True, default=repr) for row in dataset]


def digest(dataset: datasets.Dataset) -> str:
    """Short hash of the rows, in order."""
    state = hashlib.sha256()
    for key in keys_of(dataset):
        state.update(key.encode() + b"\0")
    return state.hexdigest()[:16]


def _count(name: str, asked: Any, n: int, whole: int) -> int:
    if name == splits.VALIDATION:
        return data.validation_count(asked, n, whole)
    return data.checked_count(name, asked, n, whole)


def _split(
    left: Sequence[int], keys: Sequence[str], count: int, seed: int, part: str
) -> tuple[list[int], list[int]]:
    rest, held_out = data.split(left, [keys[i] for i in left], count, seed, part)
    copies = len(left) - len(rest) - len(held_out)
    if copies:
        warn_once(
            f"{copies} of {len(left)} rows are copies of {part} rows and are left out, so that "
            "none of these is trained on."
        )
    return rest, held_out


def _order(pool: datasets.Dataset, keys: Sequence[str], by: str, seed: int) -> list[int]:
    column = proxies.column_of(by)
    if by == proxies.KMEANS:
        raise InputError(
            "proxy_by='kmeans': rows are read by your trainer only, and have no embeddings here. "
            "Choose 'random', 'length' or a column."
        )
    if column is None:
        return proxies.order(keys, by, seed)  # type: ignore[arg-type]  # their lengths are read
    if column not in pool.column_names:
        raise InputError(
            f"proxy_by={by!r}: there is no such column. The columns are: "
            f"{', '.join(pool.column_names)}."
        )
    strata = [json.dumps(value, sort_keys=True, default=repr) for value in pool[column]]
    shuffled = data.permutation(len(pool), seed, data.PROXY_STREAM)
    return proxies.spread(strata, shuffled, seed)


def _check_leaks(keys: dict[str, list[str]]) -> None:
    names = [name for name in splits.PARTS if name in keys]
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            seen = set(keys[first])
            shared = [key for key in keys[second] if key in seen]
            if shared:
                raise InputError(
                    f"{len(shared)} of the {second} rows are also in the {first} data. The first: "
                    f"{shared[0][:160]}. Remove them from one of the two."
                )
