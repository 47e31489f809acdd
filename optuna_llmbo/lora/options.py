"""The options of an objective: the one place for their names, meanings, defaults and checks.

Importing this module loads no torch, so that the command line can show the defaults in its help.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import os
from typing import Any
from typing import TYPE_CHECKING

from optuna_llmbo.errors import check_at_least
from optuna_llmbo.errors import check_choice
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.records import ALL_TURNS
from optuna_llmbo.lora.records import DROP
from optuna_llmbo.lora.records import TRAIN_ON
from optuna_llmbo.lora.records import TRUNCATIONS


if TYPE_CHECKING:
    import torch

    from optuna_llmbo.lora.metrics import Measure
    from optuna_llmbo.lora.space import Space
    from optuna_llmbo.lora.table import DataSource
    from optuna_llmbo.lora.tokens import Example


Metric = Callable[[Any, Any, Sequence["Example"]], float]
"""A measure of a trained model: (model, tokenizer, validation examples) -> a finite number."""


@dataclass(frozen=True)
class ObjectiveOptions:
    """What a `LoRAObjective` is asked to do.

    Args:
        model: a hub id, a folder, a GGUF file or "embedded"; None: as
            `language_model.resolve_source` decides.
        train: a `datasets.Dataset`; a JSON, JSONL, CSV or Parquet file (.gz too), a folder of such
            files, or one written by `save_to_disk`; a dataset of the hub, "NAME", "NAME@SPLIT" or
            "NAME:CONFIGURATION@SPLIT" (the split "train" unless named); or "stdlib-docstrings" for
            the documented functions of Python's standard library. See docs/lora.md.
        validation: data as `train`; or the number of examples to split off `train`, or which
            fraction of them, in (0, 1); None: 10% of what the test leaves, at most 128.
        test: data as `train`; or the number or fraction of examples to split off `train`, before
            validation; None: no test set. No trial trains on it or is scored on it; it is kept for
            a final measurement.
        proxy: the part of the training examples that trials train on: a fraction in (0, 1], or a
            number of examples, an integer from 2. With the same seed a larger proxy contains every
            smaller one.
        proxy_by: how the proxy is drawn: "random"; or stratified by "length" (in tokens), by
            "kmeans" (clusters of the base model's embeddings; reads all training examples once) or
            by the values of the column of that name. See docs/proxy.md.
        metric: what the search optimizes, measured on the validation examples: "loss", another
            name or metric of `optuna_llmbo.lora.metrics` ("gsm8k", "exact_match", "rouge", ...),
            or several for a multi-objective study (["loss", "seconds"],
            ["loss", "adapter_size"]). A single metric is also what trials report to the pruner;
            with several, nothing is reported.
        extra_metrics: functions of the model, its tokenizer and the validation examples, by name:
            what else to measure of a trained model. Recorded, not optimized.
        space: distributions by parameter name; or a function from the trial to a dict of
            hyperparameters; or the path of a TOML file with distributions (schema in
            `space_file`); None: `default_space`. Names are the fields of `LoRARecipe`, all of
            which can be searched, their aliases (`hyperparameters.ALIASES`), or alpha_ratio
            (alpha / rank). Whatever the space does not name keeps its default.
        variant: "lora", "rslora", "dora", "pissa", "olora" or "lora+", unless the space has it.
        epochs: passes over the proxy, unless the space has them.
        defaults: other hyperparameters of the default configuration, by name, such as
            {"target_modules": "attention", "schedule": "cosine"}. Whatever the space does not name
            is taken from here in every trial.
        max_length: examples with more tokens are left out before anything is split or sampled, or
            cut, as `truncation` says.
        truncation: what is done with examples of more than `max_length` tokens: "drop", or cut at
            the "left" or "right"; what has no token to train on then is left out.
        chat_template: a template that writes turns as text, or the path of a Jinja file with one;
            None: the tokenizer's own, or `chat_template.PLAIN` if it has none.
        train_on: of conversations, "all" of the assistant's turns or the "last" one.
        prompt_column: None: the format of the data is recognized by their columns (docs/lora.md):
            conversations (messages, conversations), prompt and completion, prompts and responses
            (prompt/response, instruction/output, question/answer), or text.
        response_column: as `prompt_column`.
        ignore_columns: columns not to be read. A column that looks like a part of the examples and
            is neither read nor named here is an error (docs/lora.md).
        reports: evaluations per trial, each reported to the pruner, 1 to 100.
        load_best_model_at_end: a trial's value, its extra metrics and its adapter are those of its
            best report instead of the last one, as with the Trainer of `transformers`; promotions
            do the same. For a search on one metric.
        micro_batch_size: maximum number of examples in memory at once; halved for all trials when
            memory runs out. It changes gradients only by rounding and by which inputs the dropout
            happens to drop.
        folder: where trials save their state at each report, so that a trial whose process died
            resumes when Optuna retries it (heartbeats and `RetryHeartbeatStaleTrialCallback`), and
            where the best adapters are kept; None: nowhere.
        keep: number of adapters to keep in `folder`: those of the best complete trials that break
            no constraint.
        seed: seed of the split, the proxy, the adapter's initial weights, the order of the
            examples and the dropout.
        device: None: CUDA if available, else the CPU.
        dtype: type of the base model's weights; None: bfloat16 where the hardware multiplies it,
            else float32. Adapters are always float32.
        quantization: "4bit" or "8bit" weights of the base model by bitsandbytes, on CUDA; None:
            not quantized.
        gradient_checkpointing: less memory, about a third more time, the same gradients.
        trial_timeout: seconds that a trial may take from its start, by the clock; one that takes
            longer is stopped at its next optimizer step or report and counts as infeasible, the
            default configuration too. A trial with its last report keeps its value. None: any.
    """

    model: str | os.PathLike[str] | None
    train: DataSource
    validation: DataSource | float | None = None
    test: DataSource | float | None = None
    proxy: float = 0.1
    proxy_by: str = "random"
    metric: str | Measure | Sequence[str | Measure] = "loss"
    extra_metrics: Mapping[str, Metric] | None = None
    space: Space | None = None
    variant: str = "lora"
    epochs: int = 1
    defaults: Mapping[str, Any] | None = None
    max_length: int = 512
    prompt_column: str | None = None
    response_column: str | None = None
    ignore_columns: Sequence[str] = ()
    truncation: str = DROP
    chat_template: str | os.PathLike[str] | None = None
    train_on: str = ALL_TURNS
    reports: int = 4
    load_best_model_at_end: bool = False
    micro_batch_size: int = 8
    folder: str | os.PathLike[str] | None = None
    keep: int = 1
    seed: int = 0
    device: str | torch.device | None = None
    dtype: torch.dtype | None = None
    quantization: str | None = None
    gradient_checkpointing: bool = False
    trial_timeout: float | None = None

    @property
    def fixed(self) -> dict[str, Any]:
        """Hyperparameters of the default configuration that differ from `recipe.DEFAULT`."""
        return {"variant": self.variant, "epochs": self.epochs, **(self.defaults or {})}

    def check(self) -> None:
        """Check what can be checked without loading anything.

        Raises:
            InputError: naming the first option that is wrong.
        """
        for name, metric in (self.extra_metrics or {}).items():
            if not callable(metric):
                raise InputError(
                    f"extra_metrics[{name!r}]={metric!r}: expected a function of the model, its "
                    "tokenizer and the validation examples."
                )
        if self.keep < 0:
            raise InputError(f"keep={self.keep!r}: expected how many adapters to keep, 0 or more.")
        if isinstance(self.ignore_columns, str):
            raise InputError(
                f"ignore_columns={self.ignore_columns!r}: expected a list of names, got one text."
            )
        check_choice("truncation", self.truncation, TRUNCATIONS)
        check_choice("train_on", self.train_on, TRAIN_ON)
        check_at_least("seed", self.seed, 0)
        check_count("micro_batch_size", self.micro_batch_size)
        check_count("reports", self.reports, 100)
        check_count("max_length", self.max_length)
        check_proxy(self.proxy)


def check_count(name: str, value: Any, most: int | None = None) -> None:
    """Raises InputError if an option is not an integer from 1, or exceeds its maximum."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < 1 or (most is not None and value > most):
        end = "" if most is None else f" to {most}"
        raise InputError(f"{name}={value!r}: expected an integer from 1{end}.")


def check_proxy(proxy: float) -> None:
    """Check that a proxy is a fraction (a float) or a number of examples (an integer).

    Raises:
        InputError: if it is neither a fraction in (0, 1] nor a count of at least 2.
    """
    if isinstance(proxy, int) and not isinstance(proxy, bool):
        if proxy == 1:
            raise InputError(
                "proxy=1: an integer is a number of examples, and one is too few. Write 1.0 for "
                "all of them."
            )
        if proxy > 1:
            return
    elif isinstance(proxy, float) and 0 < proxy <= 1:
        return
    raise InputError(
        f"proxy={proxy!r}: expected a fraction above 0 and up to 1, or an integer from 2, which "
        "is a number of examples."
    )
