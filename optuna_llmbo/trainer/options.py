"""The options of a `TrainerObjective`: names, meanings, defaults and checks."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
import json
import os
from typing import Any
from typing import TYPE_CHECKING

from optuna_llmbo.errors import check_at_least
from optuna_llmbo.errors import check_choice
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.options import check_count
from optuna_llmbo.lora.options import check_proxy


if TYPE_CHECKING:
    import torch

    from optuna_llmbo.lora.space import Space
    from optuna_llmbo.trainer.job import TrainerJob
    from optuna_llmbo.trainer.rows import RowSource


MakeTrainer = Callable[["TrainerJob"], Any]
"""From what is to be trained to a Trainer of `transformers` that is ready to train."""
DIRECTIONS = ("minimize", "maximize")


@dataclass(frozen=True)
class TrainerOptions:
    """What a `TrainerObjective` is asked to do.

    Args:
        make_trainer: from a `TrainerJob` to a Trainer, or one that builds on it, with the job's
            `validation` as its eval_dataset. It is called once a trial.
        train: as `LoRAObjective` takes it; the columns are what your trainer reads. Or a function
            that returns a `datasets.Dataset`.
        space: distributions by parameter name; or a function from the trial to a dict of
            hyperparameters; or the path of a TOML file with distributions; None: the five of
            `lora.default_space`. Names are the fields of `LoRARecipe`, their aliases, alpha_ratio
            (alpha / rank), and those in `extra`.
        defaults: hyperparameters of the default configuration, by name, where they differ from
            `recipe.DEFAULT`. Whatever the space does not name is taken from here in every trial.
        extra: default values of hyperparameters that a recipe does not have, by name, such as
            {"beta": 0.1}: plain values. The job has those of the trial.
        validation: data as `train`; or the number of rows to split off `train`, or which fraction
            of them; None: 10% of what the test leaves, at most 128.
        test: as `validation`, split off first; no trial reads it; None: no test set.
        proxy: the part of the training rows that trials train on: a fraction in (0, 1], or a
            number of rows. With the same seed a larger proxy contains every smaller one.
        proxy_by: how the proxy is drawn: "random"; or stratified by "length" (in characters), or
            by the values of the column of that name.
        model: the base model, which is loaded once and shared by all trials as `job.model`: a hub
            id, a folder, a GGUF file or "embedded"; or a function that returns a model and its
            tokenizer; None: your function loads its own.
        metric: a key of what the Trainer's evaluation returns.
        direction: "minimize" or "maximize" it.
        method: what is trained, for the sampler's knowledge: "lora", "full" (all weights),
            "preference" (DPO and its kin) or "pretraining"; None: not known.
        reports: evaluations per trial, each reported to the pruner, 1 to 100.
        measure_base: evaluate the model once before the first trial, with the default
            configuration and no training: this checks your function too, and gives `base_loss`.
        at_once: maximum number of examples in memory of a device, for the job's configurations.
        folder: where the best adapters are kept, and the trials' folders are made; None: a
            temporary place, and nothing is kept.
        keep: number of adapters to keep in `folder`: those of the best complete trials.
        seed: seed of the splits, the proxy and the trainings.
        device: of the shared base model; None: CUDA if available, else the CPU.
        dtype: of the shared base model's weights; None: bfloat16 where the hardware multiplies it,
            else float32.
        quantization: "4bit" or "8bit" weights of the shared base model by bitsandbytes, on CUDA.
        settings: whatever else determines a result, in plain values, such as {"max_length": 512}:
            a study refuses an objective with other ones.
        trial_timeout: most seconds that a trial may take; one that takes longer is infeasible.
    """

    make_trainer: MakeTrainer
    train: RowSource
    space: Space | None = None
    defaults: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] | None = None
    validation: RowSource | float | None = None
    test: RowSource | float | None = None
    proxy: float = 0.1
    proxy_by: str = "random"
    model: str | os.PathLike[str] | Callable[[], tuple[Any, Any]] | None = None
    metric: str = "eval_loss"
    direction: str = "minimize"
    method: str | None = "lora"
    reports: int = 4
    measure_base: bool = True
    at_once: int = 8
    folder: str | os.PathLike[str] | None = None
    keep: int = 1
    seed: int = 0
    device: str | torch.device | None = None
    dtype: torch.dtype | None = None
    quantization: str | None = None
    settings: Mapping[str, Any] | None = None
    trial_timeout: float | None = None

    def check(self) -> None:
        """Check what can be checked without loading anything.

        Raises:
            InputError: naming the first option that is wrong.
        """
        if not callable(self.make_trainer):
            raise InputError(
                f"make_trainer={self.make_trainer!r}: expected a function from a TrainerJob to a "
                "Trainer of transformers."
            )
        check_choice("direction", self.direction, DIRECTIONS)
        check_at_least("seed", self.seed, 0)
        check_at_least("keep", self.keep, 0)
        check_count("reports", self.reports, 100)
        check_count("at_once", self.at_once)
        check_proxy(self.proxy)
        _check_plain("extra", self.extra)
        _check_plain("settings", self.settings)


def _check_plain(name: str, values: Mapping[str, Any] | None) -> None:
    for key, value in (values or {}).items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{name}[{key!r}]={value!r}: expected a plain value (a number, a text, a list), "
                "which a study can record."
            ) from error
