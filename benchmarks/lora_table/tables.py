"""The table of runs: one row per run, as a data frame and as a Parquet file."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import pandas

from benchmarks import parquet
from optuna_llmbo.errors import InputError


FOLDER = Path(__file__).parent / "tables"
RESULTS = Path(__file__).parent.parent / "results" / "lora_table"

PARAMS = ("rank", "alpha_ratio", "lora_dropout", "batch_size", "learning_rate")

COLUMNS = {
    "run_id": "str",  # hash of all that determines the result, see `run_id`
    "design": "str",  # why it was run: default, grid, random or promoted
    "rank": "int64",
    "alpha_ratio": "float64",  # alpha / rank
    "lora_dropout": "float64",
    "batch_size": "int64",
    "learning_rate": "float64",
    "fraction": "float64",  # share of the training examples
    "seed": "int64",
    "status": "str",  # complete, diverged or out of memory
    "loss": "float64",  # validation loss after training, nats per response token; NaN: no result
    "curve": "object",  # list of validation losses after 25, 50, 75 and 100% of the steps
    "exact_match": "float64",  # in [0, 1]; NaN where the task has none
    "base_loss": "float64",  # validation loss before training
    "seconds": "float64",
    "steps": "int64",  # optimizer steps
    "tokens": "int64",  # read in training
    "examples": "int64",  # trained on
    "device": "str",
    "versions": "str",  # JSON
    "commit": "str",
    "date": "str",
    "context": "str",  # JSON: what determines the result besides the hyperparameters
}

COMPLETE, DIVERGED, OUT_OF_MEMORY = "complete", "diverged", "out of memory"

TOLERANCE = 1e-6  # nats: largest difference of one run on one kind of machine


def run_id(params: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    """Hash a run's hyperparameters and context, independent of the machine."""
    determined_by = {"params": {name: params[name] for name in PARAMS}, "context": context}
    text = json.dumps(determined_by, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def configurations(rows: pandas.DataFrame) -> list[dict[str, Any]]:
    """Return the hyperparameters of each row, in order."""
    return rows[list(PARAMS)].to_dict("records")


def key(params: Mapping[str, Any]) -> tuple[float, ...]:
    """Return a key that is the same for equal configurations."""
    return tuple(float(params[name]) for name in PARAMS)


def grid_levels(rows: pandas.DataFrame) -> dict[str, list[Any]] | None:
    """Find the levels of each hyperparameter if the rows are a complete grid; else None.

    Args:
        rows: rows with distinct configurations.
    """
    levels = {name: sorted(rows[name].unique().tolist()) for name in PARAMS}
    return levels if len(rows) == math.prod(map(len, levels.values())) > 0 else None


def frame(rows: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    """Make a data frame of the rows, with the columns of `COLUMNS`.

    Raises:
        InputError: if a row has other columns.
    """
    for row in rows:
        if row.keys() != COLUMNS.keys():
            differ = ", ".join(sorted(row.keys() ^ COLUMNS.keys()))
            raise InputError(f"a row of the table differs in its columns: {differ}.")
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    return pandas.DataFrame(
        {name: pandas.Series(columns[name], dtype=COLUMNS[name]) for name in COLUMNS}
    )


def read(path: str | os.PathLike[str]) -> pandas.DataFrame:
    """Read a table.

    Raises:
        InputError: if there is no such file, or it is not such a table.
    """
    table = parquet.read(path, COLUMNS, of="runs", made_by="benchmarks.lora_table.generate")
    return table.astype(COLUMNS)


def write(table: pandas.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table; the file is replaced only once it is complete."""
    scratch = Path(f"{os.fspath(path)}.writing")
    scratch.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(scratch, index=False, compression="zstd")
    scratch.replace(path)


def merge(tables: Sequence[pandas.DataFrame], *, tolerance: float) -> pandas.DataFrame:
    """Join parts made at different times or on different machines; each run is kept once.

    Args:
        tables: the parts; of a run in several parts, the first is kept.
        tolerance: largest difference between a run's losses, nats per response token.

    Raises:
        InputError: if a run that is in two parts has two results.
    """
    everything = pandas.concat(tables, ignore_index=True)
    for run, rows in everything[everything.duplicated("run_id", keep=False)].groupby("run_id"):
        spread = rows["loss"].max() - rows["loss"].min()
        if rows["status"].nunique() > 1 or spread > tolerance:
            raise InputError(
                f"run {run} has several results, losses {rows['loss'].tolist()}, made on "
                f"{rows['device'].tolist()}: expected a difference of at most {tolerance}. Find "
                "out which part is wrong, or raise --tolerance."
            )
    return everything.drop_duplicates("run_id").reset_index(drop=True)
