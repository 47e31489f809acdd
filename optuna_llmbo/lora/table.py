"""A source of data, opened as a table."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
import os
from pathlib import Path
import re
from typing import Any

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import data_files
from optuna_llmbo.lora.stdlib_docstrings import NAME as STDLIB_DOCSTRINGS
from optuna_llmbo.lora.stdlib_docstrings import stdlib_docstrings


DataSource = Any  # datasets.Dataset | text | path; an alias so that importing needs no datasets

SYNTAX = (
    "a JSON, JSONL, CSV or Parquet file, a folder of such files, a data set saved on disk, a "
    f"hub id (NAME, NAME:CONFIGURATION, NAME@SPLIT or both), or {STDLIB_DOCSTRINGS!r}"
)
"""What names data, for messages."""

_ON_HUB = re.compile(
    r"(?P<name>\w[\w.-]*(/\w[\w.-]*)?)(:(?P<configuration>[^:@/]+))?(@(?P<split>[^@]+))?"
)
_SAVED, _SAVED_SPLITS = "state.json", "dataset_dict.json"  # what `save_to_disk` writes


@dataclass(frozen=True)
class Table:
    """Rows of a source, a column at a time."""

    source: str
    """Short name of where it comes from, for messages."""
    names: tuple[str, ...]
    n_rows: int
    column: Callable[[str], Sequence[Any]]
    """(n_rows,) values of a column, decoded; None where a row has none."""
    stored: Callable[[str], Sequence[Any]]
    """(n_rows,) values as they are stored: images and sound as bytes."""
    fills_none: bool = False
    """Whether a key that a nested object lacks may be there with None, as in Arrow's tables."""


def open_table(source: DataSource) -> Table:
    """Open a source.

    Args:
        source: a `datasets.Dataset`; or a path or text that names data, see `SYNTAX`. What exists
            as a path is that path, whatever characters it has. The split is "train" unless named.

    Raises:
        InputError: if there is no such source, or it cannot be read.
    """
    import datasets

    label = source_name(source)
    if isinstance(source, datasets.Dataset):
        return _of_dataset(label, source)
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(
            f"expected a datasets.Dataset, or the name of data ({SYNTAX}), got a "
            f"{type(source).__name__}. Of a DatasetDict, pass one split."
        )
    name = os.fspath(source)
    if name == STDLIB_DOCSTRINGS:
        return _of_rows(label, [{"prompt": p, "response": r} for p, r in stdlib_docstrings()])
    path = Path(source).expanduser()
    if path.is_dir():
        return _of_folder(label, path, None)
    if path.exists():
        return _of_files(label, data_files.read_file(path), [path])
    place, _, split = name.rpartition("@")
    if place and (folder := Path(place).expanduser()).is_dir():
        return _of_folder(label, folder, split)
    return _of_dataset(label, _from_hub(name, path))


def source_name(source: DataSource) -> str:
    """A short name of a source for messages and for the study's record."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source).expanduser()
        return path.resolve().name if path.exists() else os.fspath(source)
    return f"a {type(source).__name__}"


def absolute(source: str) -> str:
    """The same source wherever it is named: a path becomes absolute, anything else stays."""
    return located(source) or source


def located(source: str) -> str | None:
    """The absolute path of a source, with its split if it names one; None if it is no path."""
    place, at, split = source.rpartition("@")
    for where, end in ((source, ""), (place, at + split)):
        path = Path(where).expanduser()
        if where and path.exists():
            return str(path.resolve()) + end
    return None


def _of_rows(label: str, rows: Sequence[data_files.Row]) -> Table:
    names = tuple(dict.fromkeys(name for row in rows for name in row))

    def column(name: str) -> list[Any]:
        return [row.get(name) for row in rows]

    return Table(label, names, len(rows), column, column)


def _of_files(label: str, rows: Sequence[data_files.Row], files: Sequence[Path]) -> Table:
    is_arrow = any(data_files.kind_of(path) == ".parquet" for path in files)
    return replace(_of_rows(label, rows), fills_none=is_arrow)


def _of_dataset(label: str, dataset: Any) -> Table:
    plain, stored = dataset.with_format(None), dataset.with_format("arrow")
    return Table(
        label,
        tuple(plain.column_names),
        len(plain),
        lambda name: list(plain[name]),
        lambda name: _python_values(stored, name),
        fills_none=True,
    )


def _python_values(dataset: Any, name: str) -> list[Any]:
    if len(dataset) == 0:
        return []
    values: list[Any] = dataset.select_columns([name])[:][name].to_pylist()
    return values


def _of_folder(label: str, folder: Path, split: str | None) -> Table:
    import datasets

    has_splits = (folder / _SAVED_SPLITS).is_file()
    if not has_splits and split is not None:
        raise InputError(
            f"{str(folder)!r} has no splits to choose {split!r} from: leave '@{split}' out, or "
            "name a file."
        )
    if not has_splits and not (folder / _SAVED).is_file():
        return _of_files(label, data_files.read_folder(folder), list(folder.iterdir()))
    try:
        saved = datasets.load_from_disk(folder)
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(str(folder), error) from error
    if not has_splits:
        return _of_dataset(label, saved)
    split = split or "train"
    if split not in saved:
        raise InputError(
            f"{str(folder)!r} has no split {split!r}: name one of {', '.join(saved)}, as "
            f"{str(folder)}@{next(iter(saved), split)}."
        )
    return _of_dataset(label, saved[split])


def _from_hub(name: str, path: Path) -> Any:
    import datasets

    on_hub = _ON_HUB.fullmatch(name)
    if on_hub is None or data_files.kind_of(path) is not None:
        raise InputError(f"there is no data file or folder {name!r}. Expected {SYNTAX}.")
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()  # they would disturb a live view
    try:
        return datasets.load_dataset(
            on_hub["name"], on_hub["configuration"], split=on_hub["split"] or "train"
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise _unreadable(name, error) from error
    finally:
        if bars:
            datasets.enable_progress_bars()


def _unreadable(name: str, error: Exception) -> InputError:
    reason = " ".join(str(error.__cause__ or error).split())[:400] or type(error).__name__
    return InputError(f"cannot read the data {name!r}: {reason} Expected {SYNTAX}.")
