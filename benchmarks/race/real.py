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
import functools
import math
from pathlib import Path
from typing import Any

from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from benchmarks.race import real_nmt
from benchmarks.race import real_tables
from benchmarks.race.real_rows import fitted
from benchmarks.race.real_rows import fitted_with_failures
from benchmarks.race.real_rows import looked_up
from benchmarks.race.real_rows import make
from benchmarks.race.real_rows import merged
from benchmarks.race.real_rows import over
from benchmarks.race.real_rows import Predict
from benchmarks.race.real_rows import Rows
from benchmarks.race.task import Configuration
from benchmarks.race.task import Distributions
from benchmarks.race.task import Task


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


def tasks() -> dict[str, Callable[[], Task]]:
    """Return a factory for each task."""
    factories: dict[str, Callable[[], Task]] = {
        "real-deberta-mnli": deberta,
        **real_nmt.tasks(),
        **real_nmt.transfer_tasks(*real_nmt.PAIRS),
    }
    for size in LLAMA_RANKS:
        for metric in LLAMA_METRICS:
            factories[f"real-llama-{size}-{metric}"] = functools.partial(llama, size, metric)
    for pair in NMTHPO_LAYERS:
        factories[f"real-nmthpo-{pair}"] = functools.partial(nmthpo, pair)
    for telling in TELLINGS:
        factories[f"real-gpt-pretrain-{telling}"] = functools.partial(gpt_pretrain, telling)
    return factories


TRANSFER_TUNING = tuple(real_nmt.transfer_tasks("fr-en"))
"""Tasks with earlier studies, on which the sampler's constants may be chosen."""

TRANSFER_REPORTED = (
    "real-llama-3b-mmlu",
    "real-llama-3b-hellaswag",
    *real_nmt.transfer_tasks("zh-en"),
)
"""Tasks with earlier studies on which results are reported, and nothing was chosen."""


def table_of(name: str) -> str:
    """Return the name of a task's table."""
    name = name.removeprefix("real-").removeprefix("transfer-")
    return name if "nmthpo" in name else name.split("-")[0]


def llama(size: str, metric: str) -> Task:
    """Make a task of LoRA fine-tuning of Llama-3.2; the size is 1b or 3b."""
    rows = llama_rows(size, metric)
    benchmark = {"mmlu": "MMLU", "hellaswag": "HellaSwag"}[metric]
    return make(
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


def nmthpo(pair: str) -> Task:
    """Make a task of training a translator; configurations that were not published fail."""
    table = real_tables.read(f"nmthpo-{pair}")
    levels = nmthpo_levels(pair)
    rows = merged(table, over(levels), -table["dev_bleu"])
    return make(
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
    return make(
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
    return make(
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
    return rows, fitted_with_failures(rows, snapped)


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
