"""How the files that others published become the tables of the race, byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import csv
from dataclasses import dataclass
import io
import json
from typing import Any


Rows = Iterable[Sequence[Any]]


@dataclass(frozen=True)
class Original:
    """The files that a table is made from."""

    paths: tuple[str, ...]
    """Paths in the repository."""
    columns: tuple[str, ...]
    """Columns of the table."""
    rows: Callable[[Sequence[str]], Rows]
    """Makes the rows of the table from the texts of the files."""

    def convert(self, texts: Sequence[str]) -> bytes:
        """Make the table, in CSV with lines ending as RFC 4180 has it.

        Args:
            texts: the texts of the files, in the order of `paths`.

        Raises:
            KeyError, ValueError: if the texts are not in the form of these files.
        """
        table = io.StringIO(newline="")
        writer = csv.writer(table)
        writer.writerow(self.columns)
        writer.writerows(self.rows(texts))
        return table.getvalue().encode()


NMTHPO = (
    *("bpe_symbols", "num_layers", "num_embed", "ff_num_hidden", "attention_heads"),
    *("initial_learning_rate", "dev_bleu", "dev_gpu_time", "dev_ppl", "num_updates"),
    *("gpu_memory", "num_param", "pareto_bleu_time"),
)

LLAMA_FILES = ("lhs", "lhs_bis", "bo", "bo_bis", "soo", "soo_bis", "bamsoo_bis")
LLAMA = (
    *("run_file", "index", "space", "lora_rank", "lora_alpha", "lora_dropout", "learning_rate"),
    *("weight_decay", "hellaswag_acc", "hellaswag_acc_norm", "mmlu_acc", "mmlu_acc_stderr"),
    *("state", "other_score"),
)

DEBERTA = (
    *("iteration", "num_train_epochs", "train_batch_size", "learning_rate", "warmup_steps"),
    *("warmup_proportion", "cls_drop_out", "total_model_steps", "matched_final"),
    *("mismatched_final", "matched_best", "mismatched_best", "n_evals"),
)

GPT_CONFIGURATION = (
    *("DEPTH", "ASPECT_RATIO", "HEAD_DIM", "DEVICE_BATCH_SIZE", "TOTAL_BATCH_SIZE"),
    *("EMBEDDING_LR", "UNEMBEDDING_LR", "MATRIX_LR", "SCALAR_LR", "WEIGHT_DECAY"),
    *("WARMUP_RATIO", "WARMDOWN_RATIO", "FINAL_LR_FRAC", "WINDOW_PATTERN"),
)
GPT_RESULTS = {
    "val_bpb": "val_bpb",
    "success": "success",
    "train_loss": "train_loss",
    "peak_memory_gb": "peak_memory_gb",
    "wall_time_seconds": "wall_time_s",
    "tokens_per_second": "tokens_per_s",
}
"""Keys of a trial, and their columns."""
GPT_METRICS = ("num_params_M", "num_steps", "total_tokens_M")
GPT_RUNS = tuple(
    (method, seed)
    for method, seeds in {
        "centaur_Qwen3_5_0_8B": 3,
        "centaur_Qwen3_5_0_8B_ratio_": 1,
        "centaur_Qwen3_5_27B": 3,
        "cma_es": 3,
        "karpathy_agent_hps": 3,
        "karpathy_agent_hps_Qwen3_5_27B": 3,
        "llambo": 3,
        "llambo_Qwen3_5_27B": 3,
        "llambo_original": 3,
        "llambo_original_Qwen3_5_27B": 3,
        "optuna": 3,
        "random": 3,
        "smac": 3,
    }.items()
    for seed in range(seeds)
)
"""Searches in the fixed space: the method and the seed."""
GPT_DIGITS = 7


def nmthpo(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Join the lines of configurations, results and the Pareto front."""
    for configuration, results, front in zip(*map(str.splitlines, texts), strict=True):
        *sizes, rate = configuration.split()
        yield (*(size.removesuffix(".0") for size in sizes), rate, *results.split(), front)


def llama(texts: Sequence[str]) -> Iterator[Sequence[Any]]:
    """Take configuration and scores of each run."""
    for file, text in zip(LLAMA_FILES, texts, strict=True):
        space = f"lora_rank up to {64 if file.endswith('_bis') else 512}"
        for index, run in enumerate(_json_lines(text)):
            scores, about = dict(run["score"]), run["info"]
            hellaswag, mmlu = scores.pop("hellaswag", {}), scores.pop("mmlu", {})
            yield (
                *(file, index, space, *run["solution"]["converted_values"]),
                *(hellaswag.get("acc,none"), hellaswag.get("acc_norm,none")),
                *(mmlu.get("acc,none"), mmlu.get("acc_stderr,none")),
                *(about.get("phase", about.get("score_state")), json.dumps(scores)),
            )


def deberta(texts: Sequence[str]) -> Iterator[Sequence[Any]]:
    """Take configuration, last and best accuracies of each run.

    The warm-up is a part of the first epoch.
    """
    for run in _json_lines(texts[0]):
        epoch = run["total_model_steps"] / run["num_train_epochs"]
        curves = run["learning_curves"]
        matched = [accuracy for _, accuracy in curves["matched"]]
        mismatched = [accuracy for _, accuracy in curves["mismatched"]]
        accuracies = matched[-1], mismatched[-1], max(matched), max(mismatched)
        yield (
            *(run[name] for name in DEBERTA[:5]),
            round(run["warmup_steps"] / epoch, 5),
            *(run["cls_drop_out"], run["total_model_steps"]),
            *(round(accuracy, 6) for accuracy in accuracies),
            len(matched),
        )


def gpt(texts: Sequence[str]) -> Iterator[Sequence[Any]]:
    """Take configuration and results of each trial, numbers rounded."""
    for (method, seed), text in zip(GPT_RUNS, texts, strict=True):
        for trial in _json_lines(text):
            values = (
                *(trial["config"][name] for name in GPT_CONFIGURATION),
                *(trial[name] for name in GPT_RESULTS),
                *(trial["extra_metrics"].get(name) for name in GPT_METRICS),
                *(trial["backend"], trial["error"]),
            )
            yield (
                *(method, seed, trial["trial_id"]),
                *(round(v, GPT_DIGITS) if isinstance(v, float) else v for v in values),
            )


def _json_lines(text: str) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in text.split("\n") if line)


def _nmthpo(pair: str) -> Original:
    parts = ("hyps", "evals", "fronts")
    return Original(tuple(f"datasets/{pair}.{part}" for part in parts), NMTHPO, nmthpo)


ORIGINALS = {
    "llama": Original(
        tuple(f"computation_experiments/results/{file}.json" for file in LLAMA_FILES), LLAMA, llama
    ),
    "deberta": Original(("data/deberta/deberta-base_tuning.results.jsonl",), DEBERTA, deberta),
    "nmthpo-sw-en": _nmthpo("sw-en"),
    "nmthpo-so-en": _nmthpo("so-en"),
    "gpt": Original(
        tuple(f"results/{method}/seed_{seed}/trials.jsonl" for method, seed in GPT_RUNS),
        (
            *("method", "seed", "trial_id", *GPT_CONFIGURATION, *GPT_RESULTS.values()),
            *(*GPT_METRICS, "backend", "error"),
        ),
        gpt,
    ),
}
"""The original files of each table, but for `nmt`: a pickle, which could run code."""
