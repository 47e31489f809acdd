"""Real fine-tuning and training runs, from published tables (see `real_tables`).

Tables that are grids are looked up: parameters are numeric over the range of the levels, and a
configuration has the value of the nearest level. The others are surrogates, extremely randomized
trees that are fitted to all rows. Metrics to be maximized are negated; accuracies are subtracted
from 1. The best value is the table's lowest, which an average of rows cannot fall below; the
middle is the median of random configurations that succeed.

The default configurations: LoRA and translation, common practice or the middle of the levels, as
nothing is published; DeBERTa, the recipe of its authors for MNLI; GPT, the default of the original
training script.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pandas

from benchmarks.race import real_tables
from benchmarks.race import trees
from benchmarks.race.task import Configuration
from benchmarks.race.task import Distributions
from benchmarks.race.task import draw
from benchmarks.race.task import N_DRAWS
from benchmarks.race.task import nearest_in_log
from benchmarks.race.task import suggest_all
from benchmarks.race.task import Task
from benchmarks.race.task import TrialFailed


Predict = Callable[[Sequence[Configuration]], np.ndarray]
"""Computes the values of configurations, (n,); nan where the trial fails."""

LLAMA_RANKS = {"1b": 64, "3b": 512}
"""The highest LoRA rank, by size of the model."""
LLAMA_METRICS = {"mmlu": "mmlu_acc", "hellaswag": "hellaswag_acc_norm"}
LLAMA_DEFAULT = {
    "lora_rank": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "learning_rate": 2e-4,
    "weight_decay": 0.01,
}

NMT_LEVELS: dict[str, list[Any]] = {
    "llm": ["bloomz-560m", "bloomz-1b7", "bloomz-3b", "xglm-564M", "xglm-1.7B", "xglm-2.9B"],
    "lora_rank": [2, 16, 64],
    "batch_size": [16, 32, 64],
    "learning_rate": [2e-5, 1e-4, 2e-4],
}
NMT_DEFAULT = {"llm": "bloomz-1b7", "lora_rank": 16, "batch_size": 32, "learning_rate": 1e-4}
NMT_PAIRS = {"fr-en": "French to English", "zh-en": "Chinese to English"}
NMT_METRICS = {"ppl": "perplexity", "bleu": "negative BLEU"}

DEBERTA_SPACE: Distributions = {
    "num_train_epochs": IntDistribution(1, 4),
    "train_batch_size": IntDistribution(16, 64),
    "learning_rate": FloatDistribution(1e-6, 1e-3, log=True),
    "warmup_proportion": FloatDistribution(0.0, 0.6),
    "cls_drop_out": FloatDistribution(0.0, 0.3),
}
DEBERTA_DEFAULT = {
    "num_train_epochs": 3,
    "train_batch_size": 32,
    "learning_rate": 2e-5,
    "warmup_proportion": 0.1,
    "cls_drop_out": 0.15,
}

NMTHPO_LAYERS = {"sw-en": [1, 2, 4, 6], "so-en": [1, 2, 4]}
NMTHPO_LANGUAGES = {"sw-en": "Swahili", "so-en": "Somali"}
NMTHPO_DEFAULT = {
    "bpe_symbols": 8000,
    "num_layers": 2,
    "num_embed": 512,
    "ff_num_hidden": 2048,
    "attention_heads": 8,
    "initial_learning_rate": 3e-4,
}

GPT_SPACE: Distributions = {
    "DEPTH": IntDistribution(4, 24),
    "ASPECT_RATIO": IntDistribution(32, 128),
    "HEAD_DIM": IntDistribution(64, 256, log=True),
    "DEVICE_BATCH_SIZE": IntDistribution(32, 256, log=True),
    "TOTAL_BATCH_SIZE": IntDistribution(2**16, 2**21, log=True),
    "EMBEDDING_LR": FloatDistribution(0.01, 2.0, log=True),
    "UNEMBEDDING_LR": FloatDistribution(5e-4, 0.05, log=True),
    "MATRIX_LR": FloatDistribution(5e-3, 0.2, log=True),
    "SCALAR_LR": FloatDistribution(0.05, 2.0, log=True),
    "WEIGHT_DECAY": FloatDistribution(0.0, 0.5),
    "WARMUP_RATIO": FloatDistribution(0.0, 0.3),
    "WARMDOWN_RATIO": FloatDistribution(0.1, 0.8),
    "FINAL_LR_FRAC": FloatDistribution(0.0, 0.2),
    "WINDOW_PATTERN": CategoricalDistribution(["SSSL", "SSLL", "SLSL", "LSSL", "SSSS", "LLLL"]),
}
GPT_DEFAULT = {
    "DEPTH": 8,
    "ASPECT_RATIO": 64,
    "HEAD_DIM": 128,
    "DEVICE_BATCH_SIZE": 128,
    "TOTAL_BATCH_SIZE": 2**19,
    "EMBEDDING_LR": 0.6,
    "UNEMBEDDING_LR": 0.004,
    "MATRIX_LR": 0.04,
    "SCALAR_LR": 0.5,
    "WEIGHT_DECAY": 0.2,
    "WARMUP_RATIO": 0.0,
    "WARMDOWN_RATIO": 0.5,
    "FINAL_LR_FRAC": 0.0,
    "WINDOW_PATTERN": "SSSL",
}
GPT_POWERS_OF_TWO = ("HEAD_DIM", "DEVICE_BATCH_SIZE", "TOTAL_BATCH_SIZE")
GPT_SEQUENCE = 2048

TELLINGS: dict[str, float | None] = {"raises": None, "nan": math.nan, "100": 100.0}
"""What a run out of memory returns; None: it raises."""

TUNING = (
    "real-llama-1b-mmlu",
    "real-llama-1b-hellaswag",
    "real-nmt-fr-en-ppl",
    "real-nmt-fr-en-bleu",
    "real-deberta-mnli",
)
"""Tasks on which the sampler's constants may be chosen."""

REPORTED = (
    "real-llama-3b-mmlu",
    "real-llama-3b-hellaswag",
    "real-nmt-zh-en-ppl",
    "real-nmt-zh-en-bleu",
    "real-nmthpo-sw-en",
    "real-nmthpo-so-en",
    *(f"real-gpt-pretrain-{telling}" for telling in TELLINGS),
)
"""Tasks on which results are reported, and nothing was chosen."""


@dataclass(frozen=True)
class Rows:
    """Configurations of a table and their values, repeats of a configuration merged."""

    space: Distributions
    configurations: list[dict[str, Any]]
    values: np.ndarray
    """The median of the repeats, (n,); nan where half of them failed."""


def tasks() -> dict[str, Callable[[], Task]]:
    """Return a factory for each task."""
    factories: dict[str, Callable[[], Task]] = {"real-deberta-mnli": deberta}
    for size in LLAMA_RANKS:
        for metric in LLAMA_METRICS:
            factories[f"real-llama-{size}-{metric}"] = functools.partial(llama, size, metric)
    for pair in NMT_PAIRS:
        for metric in NMT_METRICS:
            factories[f"real-nmt-{pair}-{metric}"] = functools.partial(nmt, pair, metric)
    for pair in NMTHPO_LAYERS:
        factories[f"real-nmthpo-{pair}"] = functools.partial(nmthpo, pair)
    for telling in TELLINGS:
        factories[f"real-gpt-pretrain-{telling}"] = functools.partial(gpt_pretrain, telling)
    return factories


TABLES = {
    name: name.removeprefix("real-")
    if "nmthpo" in name
    else next(table for table in real_tables.SOURCES if name.startswith(f"real-{table}-"))
    for name in (*TUNING, *REPORTED)
}
"""The table of each task."""


def llama(size: str, metric: str) -> Task:
    """Make a task of LoRA fine-tuning of Llama-3.2; the size is 1b or 3b."""
    rows = llama_rows(size, metric)
    benchmark = {"mmlu": "MMLU", "hellaswag": "HellaSwag"}[metric]
    return _make(
        f"real-llama-{size}-{metric}",
        f"error on {benchmark} after LoRA fine-tuning of Llama-3.2-{size.upper()} on "
        "instructions, one epoch",
        rows,
        fitted(rows),
        LLAMA_DEFAULT,
    )


def llama_rows(size: str, metric: str) -> Rows:
    """Read the runs of a model; values that were only approximated are left out."""
    table = real_tables.read("llama")
    table = table[table["run_file"].str.endswith("_bis") == (size == "1b")]
    table = table[table["state"] != "approximated"]
    space: Distributions = {
        "lora_rank": IntDistribution(2, LLAMA_RANKS[size]),
        "lora_alpha": IntDistribution(1, 64),
        "lora_dropout": FloatDistribution(0.0, 0.5),
        "learning_rate": FloatDistribution(1e-10, 1e-1, log=True),
        "weight_decay": FloatDistribution(1e-5, 1e-1, log=True),
    }
    return merged(table, space, 1.0 - table[LLAMA_METRICS[metric]])


def nmt(pair: str, metric: str) -> Task:
    """Make a task of LoRA fine-tuning of language models for translation.

    The value is that of the best checkpoint; the grid lacks three cells of zh-en, which fail.
    """
    table = real_tables.read("nmt")
    table = table[table["pair"] == pair]
    values = table["ppl_best"] if metric == "ppl" else -table["bleu_best"]
    rows = merged(table, over(NMT_LEVELS), values)
    return _make(
        f"real-nmt-{pair}-{metric}",
        f"{NMT_METRICS[metric]} on validation data of LoRA fine-tuning of a multilingual language "
        f"model that translates {NMT_PAIRS[pair]}",
        rows,
        looked_up(rows, NMT_LEVELS),
        NMT_DEFAULT,
    )


def nmthpo(pair: str) -> Task:
    """Make a task of training a translator; configurations that were not published fail."""
    table = real_tables.read(f"nmthpo-{pair}")
    levels = nmthpo_levels(pair)
    rows = merged(table, over(levels), -table["dev_bleu"])
    return _make(
        f"real-nmthpo-{pair}",
        f"negative BLEU of a transformer trained to translate {NMTHPO_LANGUAGES[pair]} to English "
        "from little data",
        rows,
        looked_up(rows, levels),
        NMTHPO_DEFAULT,
    )


def nmthpo_levels(pair: str) -> dict[str, list[Any]]:
    """Return the levels of the grid."""
    return {
        "bpe_symbols": [1000, 2000, 4000, 8000, 16000, 32000],
        "num_layers": NMTHPO_LAYERS[pair],
        "num_embed": [256, 512, 1024],
        "ff_num_hidden": [1024, 2048],
        "attention_heads": [8, 16],
        "initial_learning_rate": [3e-4, 6e-4, 1e-3],
    }


def deberta() -> Task:
    """Make the task of fine-tuning DeBERTa; the value is that of the last checkpoint."""
    rows = deberta_rows()
    return _make(
        "real-deberta-mnli",
        "validation error of fine-tuning DeBERTa-base on MultiNLI (matched)",
        rows,
        fitted(rows),
        DEBERTA_DEFAULT,
    )


def deberta_rows() -> Rows:
    """Read the runs of DeBERTa-base."""
    table = real_tables.read("deberta")
    return merged(table, DEBERTA_SPACE, 1.0 - table["matched_final"])


def gpt_pretrain(telling: str) -> Task:
    """Make the task of pre-training GPT, which may run out of memory: see `TELLINGS`."""
    rows, predict = _gpt(real_tables.find("gpt"))
    return _make(
        f"real-gpt-pretrain-{telling}",
        "validation bits per byte of a small GPT pre-trained for 5 minutes on one GPU, which may "
        "run out of memory",
        rows,
        predict,
        GPT_DEFAULT,
        failure=TELLINGS[telling],
    )


@functools.cache
def _gpt(path: Path) -> tuple[Rows, Predict]:
    """Fit the surrogate once for all tellings; the path of the table is the cache's key."""
    rows = gpt_rows()
    return rows, fitted_with_failures(rows)


def gpt_rows() -> Rows:
    """Read all trials of all methods, but for five with a pattern that is no choice."""
    table = real_tables.read("gpt")
    pattern = GPT_SPACE["WINDOW_PATTERN"]
    assert isinstance(pattern, CategoricalDistribution)
    table = table[table["WINDOW_PATTERN"].isin(pattern.choices)]
    return merged(table, GPT_SPACE, table["val_bpb"].where(table["success"]))


def snapped(configuration: Configuration) -> dict[str, Any]:
    """Return what the training script makes of a configuration: powers of two, in some sizes."""
    sizes = {name: 2 ** round(math.log2(configuration[name])) for name in GPT_POWERS_OF_TWO}
    least = GPT_SEQUENCE * sizes["DEVICE_BATCH_SIZE"]
    sizes["TOTAL_BATCH_SIZE"] = max(sizes["TOTAL_BATCH_SIZE"], least)
    return {**configuration, **sizes}


def merged(table: pandas.DataFrame, space: Distributions, values: pandas.Series) -> Rows:
    """Merge the rows of each configuration: the median of its values, nan if half are missing."""
    groups = values.groupby([table[name] for name in space], sort=False)
    medians = groups.median().where(groups.count() > groups.size() / 2)
    configurations = medians.index.to_frame(index=False).to_dict("records")
    return Rows(space, configurations, medians.to_numpy())


def over(levels: Mapping[str, list[Any]]) -> Distributions:
    """Return the search space over levels: choices of words, or log ranges of numbers."""
    return {name: _over_one(some) for name, some in levels.items()}


def _over_one(levels: list[Any]) -> Any:
    if isinstance(levels[0], str):
        return CategoricalDistribution(levels)
    kind = IntDistribution if isinstance(levels[0], int) else FloatDistribution
    return kind(levels[0], levels[-1], log=True)


def looked_up(rows: Rows, levels: Mapping[str, list[Any]]) -> Predict:
    """Return the values of the nearest cells of a grid; cells without a row fail."""

    def cell(configuration: Configuration) -> tuple[int, ...]:
        return tuple(_level(some, configuration[name]) for name, some in levels.items())

    cells = dict(zip(map(cell, rows.configurations), rows.values, strict=True))
    return lambda configurations: np.array([cells.get(cell(c), math.nan) for c in configurations])


def _level(levels: list[Any], value: Any) -> int:
    return levels.index(value) if isinstance(value, str) else nearest_in_log(levels, value)


def fitted(rows: Rows) -> Predict:
    """Return the predictions of a surrogate of the values."""
    model = trees.regression(trees.encode(rows.space, rows.configurations), rows.values)
    return lambda configurations: model.predict(trees.encode(rows.space, configurations))


def fitted_with_failures(rows: Rows) -> Predict:
    """Return the predictions of surrogates of failures, and of the values of what succeeds."""
    features = trees.encode(rows.space, rows.configurations)
    fails = np.isnan(rows.values)
    failure = trees.classification(features, fails)
    model = trees.regression(features[~fails], rows.values[~fails])

    def predict(configurations: Sequence[Configuration]) -> np.ndarray:
        asked = trees.encode(rows.space, map(snapped, configurations))
        return np.where(failure.predict(asked), math.nan, model.predict(asked))

    return predict


def _make(
    name: str,
    sentence: str,
    rows: Rows,
    predict: Predict,
    default: Configuration,
    failure: float | None = None,
) -> Task:
    def value(configuration: Configuration) -> float:
        predicted = float(predict([configuration])[0])
        if not math.isnan(predicted):
            return predicted
        if failure is None:
            raise TrialFailed(f"{name} has no value at {dict(configuration)}.")
        return failure

    return Task(
        name=name,
        family="real",
        sentence=sentence,
        distributions=rows.space,
        suggest=suggest_all(rows.space),
        value=value,
        best=float(np.nanmin(rows.values)),
        middle=float(np.nanmedian(predict(draw(rows.space, N_DRAWS, seed=0)))),
        default=default,
        may_be_nan=failure is not None and math.isnan(failure),
    )
