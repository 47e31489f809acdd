"""Texts that name what was run: one for each row of a table, made of its settings alone."""

from __future__ import annotations

from collections.abc import Mapping
import json
from typing import Any

import pandas


COMPONENTS = (
    "pre_embedding",
    "query_expansion",
    "retrieval",
    "passage_augment",
    "passage_rerank",
    "passage_filter",
    "passage_compress",
    "prompt_maker",
    "generator",
    "post_generation",
)
"""Columns with the components of a pipeline of retrieval and generation."""

COMMON_SETTINGS = {
    "rank": "rank",
    "alpha": "alpha",
    "num_virtual_tokens": "num_virtual_tokens",
    "n_frequency": "n_frequency",
    "target_modules": "target_modules",
    "init": "init",
    "use_dora": "use_dora",
    "use_rslora": "use_rslora",
}
"""Settings that many methods of fine-tuning have, and their columns."""

OWN_SETTINGS = (
    "decomposition_method",
    "para",
    "sparse_rate",
    "config_A_B",
    "config_C",
    "feedforward_modules",
    "init_r",
    "target_r",
    "scaling",
    "use_bdlora",
    "mini_r",
    "psoft_svd",
    "use_cayley_neumann",
    "weight_tying",
)
"""Settings of single methods, by key of the configuration: those in which the experiments with a
method differ, and AdaLoRA's own ranks."""

TRAINING_SETTINGS = {"optimizer": "optimizer_type", "lr": "lr", "weight_decay": "weight_decay"}

LEFT_OUT = (None, False, "(library default / none)", "AdamW")
"""What a text does not mention: settings without a value, and the usual optimizer."""


def estimators(names: pandas.Series, settings: pandas.Series) -> pandas.Series:
    """Name estimators with their settings; some have none."""
    return names + (": " + settings).fillna("")


def pipelines(table: pandas.DataFrame) -> pandas.Series:
    """Name the components of pipelines, without those that are the same in all rows.

    The names are the published ones; where they begin with what the component is called, that is
    not repeated.
    """
    differing = [name for name in COMPONENTS if table[name].nunique() > 1]
    parts = [
        name + ": " + table[name].str.removeprefix(f"{name}_").astype(object) for name in differing
    ]
    return pandas.concat(parts, axis="columns").agg("; ".join, axis="columns")


def experiments(table: pandas.DataFrame) -> pandas.Series:
    """Name experiments of fine-tuning: the method and its settings, those of training last."""
    texts = [_experiment(row) for row in table.to_dict("records")]
    return pandas.Series(texts, index=table.index)


def _experiment(row: Mapping[str, Any]) -> str:
    text = row["peft_config_json"]
    configuration = json.loads(text) if isinstance(text, str) else {}
    settings = {
        **{name: row[column] for name, column in COMMON_SETTINGS.items()},
        **{name: configuration.get(name) for name in OWN_SETTINGS},
        **{name: row[column] for name, column in TRAINING_SETTINGS.items()},
    }
    parts = [
        f"{name}={_written(value)}" for name, value in settings.items() if not _is_left_out(value)
    ]
    return ", ".join([row["peft_type"], *parts])


def _is_left_out(value: Any) -> bool:
    if isinstance(value, bool | str) or value is None:
        return value in LEFT_OUT
    return isinstance(value, float) and pandas.isna(value)


def _written(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(sorted(map(str, value)))
    if isinstance(value, dict):
        return " ".join(f"{name} {_written(one)}" for name, one in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
