"""LoRA fine-tuning of six language models for translation: a grid of runs (see `real_tables`).

In the transfer tasks one model is tuned, and the runs of the other five are known.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import functools
import json
from typing import Any

import pandas

from benchmarks.race import real_tables
from benchmarks.race.real_rows import cell
from benchmarks.race.real_rows import looked_up
from benchmarks.race.real_rows import make
from benchmarks.race.real_rows import merged
from benchmarks.race.real_rows import over
from benchmarks.race.real_rows import Rows
from benchmarks.race.task import Configuration
from benchmarks.race.task import Task
from benchmarks.race.task import TrialFailed


Curves = Callable[[Configuration], list[float]]
"""Looks up a run's value at each of its checkpoints, in order; lower is better.

Raises TrialFailed if there is no such run.
"""

LEVELS: dict[str, list[Any]] = {
    "llm": ["bloomz-560m", "bloomz-1b7", "bloomz-3b", "xglm-564M", "xglm-1.7B", "xglm-2.9B"],
    "lora_rank": [2, 16, 64],
    "batch_size": [16, 32, 64],
    "learning_rate": [2e-5, 1e-4, 2e-4],
}
LLMS: list[str] = LEVELS["llm"]
OF_ONE = {name: levels for name, levels in LEVELS.items() if name != "llm"}
"""Levels of the parameters that are tuned for one language model."""
DEFAULT = {"llm": "bloomz-1b7", "lora_rank": 16, "batch_size": 32, "learning_rate": 1e-4}
PAIRS = {"fr-en": "French to English", "zh-en": "Chinese to English"}
METRICS = {"ppl": "perplexity", "bleu": "negative BLEU"}


def tasks() -> dict[str, Callable[[], Task]]:
    """Return a factory for each task over all language models."""
    return {
        f"real-nmt-{pair}-{metric}": functools.partial(nmt, pair, metric)
        for pair in PAIRS
        for metric in METRICS
    }


def transfer_tasks(*pairs: str) -> dict[str, Callable[[], Task]]:
    """Return a factory for each task of one language model and some pairs of languages."""
    return {
        transfer_name(pair, metric, llm): functools.partial(nmt_of_one, pair, metric, llm)
        for pair in pairs
        for metric in METRICS
        for llm in LLMS
    }


def transfer_sources() -> dict[str, Callable[[], Mapping[str, Rows]]]:
    """Return what reads the earlier studies of each transfer task: the other models' runs."""
    return {
        transfer_name(pair, metric, llm): functools.partial(_others, pair, metric, llm)
        for pair in PAIRS
        for metric in METRICS
        for llm in LLMS
    }


def transfer_name(pair: str, metric: str, llm: str) -> str:
    """Name the task of one language model."""
    return f"real-transfer-nmt-{pair}-{metric}-{llm}"


def nmt(pair: str, metric: str) -> Task:
    """Make a task of LoRA fine-tuning of language models for translation.

    The value is that of the best checkpoint; the grid lacks three cells of zh-en, which fail.
    """
    table = _table(pair)
    rows = merged(table, over(LEVELS), _values(table, metric))
    return make(
        f"real-nmt-{pair}-{metric}",
        f"{METRICS[metric]} on validation data of LoRA fine-tuning of a multilingual language "
        f"model that translates {PAIRS[pair]}",
        rows,
        looked_up(rows, LEVELS),
        DEFAULT,
    )


def learning_curves(pair: str, metric: str) -> Curves:
    """Return what looks up the curve of the nearest cell in a task of `nmt`.

    The lowest value of a curve is that of the configuration, but for rounding.
    """
    table = _table(pair)
    sign = 1.0 if metric == "ppl" else -1.0
    curves = {
        cell(LEVELS, configuration): [sign * value for value in json.loads(curve)]
        for configuration, curve in zip(
            table[list(LEVELS)].to_dict("records"), table[f"{metric}_curve"], strict=True
        )
    }

    def look_up(configuration: Configuration) -> list[float]:
        place = cell(LEVELS, configuration)
        if place not in curves:
            raise TrialFailed(f"real-nmt-{pair}-{metric} has no run of {dict(configuration)}.")
        return curves[place]

    return look_up


def mean_length(pair: str) -> float:
    """Return the mean number of checkpoints of a run."""
    return float(_table(pair)["n_ckpt"].mean())


def longest(pair: str) -> int:
    """Return the greatest number of checkpoints of a run."""
    return int(_table(pair)["n_ckpt"].max())


def nmt_of_one(pair: str, metric: str, llm: str) -> Task:
    """Make the task of `nmt` for one of the language models."""
    rows = rows_of_one(pair, metric, llm)
    return make(
        transfer_name(pair, metric, llm),
        f"{METRICS[metric]} on validation data of LoRA fine-tuning of {llm} that translates "
        f"{PAIRS[pair]}",
        rows,
        looked_up(rows, OF_ONE),
        {name: DEFAULT[name] for name in OF_ONE},
    )


def rows_of_one(pair: str, metric: str, llm: str) -> Rows:
    """Read the runs of one language model."""
    table = _table(pair)
    table = table[table["llm"] == llm]
    return merged(table, over(OF_ONE), _values(table, metric))


def _others(pair: str, metric: str, llm: str) -> dict[str, Rows]:
    return {other: rows_of_one(pair, metric, other) for other in LLMS if other != llm}


def _table(pair: str) -> pandas.DataFrame:
    table = real_tables.read("nmt")
    return table[table["pair"] == pair]


def _values(table: pandas.DataFrame, metric: str) -> pandas.Series:
    return table["ppl_best"] if metric == "ppl" else -table["bleu_best"]
