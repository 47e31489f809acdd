"""What a user's function makes a trainer of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from typing import TYPE_CHECKING

from optuna.trial import BaseTrial

from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.trainer import configs
from optuna_llmbo.trainer.shared_base import Loan


if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class TrainerJob:
    """One training to set up: hyperparameters, data, and where to write.

    `lora_config`, `training_arguments`, `sft_config` and `dpo_config` put the recipe into the
    configurations of peft, `transformers` and TRL; their arguments add to it, or replace what it
    says. The three last have the trial's folder and seed, save no checkpoints, report to no
    tracker and evaluate nothing by themselves, because the objective's callback does.
    """

    recipe: LoRARecipe
    """Checked hyperparameters: those that are searched, and the defaults of all others."""
    extra: Mapping[str, Any]
    """Values of the hyperparameters that a recipe does not have, such as DPO's beta."""
    train: datasets.Dataset
    """The proxy, the same rows in every trial."""
    validation: datasets.Dataset
    """Rows to evaluate on: the Trainer's eval_dataset."""
    seed: int
    folder: str
    """For the Trainer's output_dir: removed after the trial."""
    trial: BaseTrial | None
    """The running trial; None where the trainer is made outside of one, to measure the base model
    or to train the result of a search."""
    loan: Loan
    at_once: int
    """Maximum number of examples in memory of a device."""

    @property
    def model(self) -> Any:
        """The base model, which all trials share: to attach an adapter to, as TRL's trainers and
        `peft.get_peft_model` do. It is restored after the trial.

        Raises:
            InputError: if the objective has no `model`.
        """
        return self.loan.model

    @property
    def tokenizer(self) -> Any:
        """A copy of the base model's tokenizer, which may be changed.

        Raises:
            InputError: if the objective has no `model`.
        """
        return self.loan.tokenizer

    def lora_config(self, **more: Any) -> Any:
        """The adapter as `peft.LoraConfig`.

        Raises:
            InputError: if the model cannot be trained so.
        """
        model = self.loan.model if self.loan.has_model else None
        return configs.lora_config(self.recipe, model, **more)

    def training_arguments(self, **more: Any) -> Any:
        """The optimization as `transformers.TrainingArguments`.

        Raises:
            InputError: naming the hyperparameter that they cannot express.
        """
        return configs.training_arguments(self.recipe, **{**self._usual(), **more})

    def sft_config(self, **more: Any) -> Any:
        """The optimization as `trl.SFTConfig`.

        Raises:
            InputError: naming the hyperparameter that it cannot express, or if TRL is not
                installed.
        """
        return configs.sft_config(self.recipe, **{**self._usual(), **more})

    def dpo_config(self, **more: Any) -> Any:
        """The optimization as `trl.DPOConfig`, with the beta in `extra`, if there is one.

        Raises:
            InputError: naming the hyperparameter that it cannot express, or if TRL is not
                installed.
        """
        beta = {"beta": self.extra["beta"]} if "beta" in self.extra else {}
        return configs.dpo_config(self.recipe, **{**self._usual(), **beta, **more})

    def _usual(self) -> dict[str, Any]:
        return {
            "n_examples": len(self.train),
            "at_once": self.at_once,
            "per_device_eval_batch_size": self.at_once,
            "output_dir": self.folder,
            "seed": self.seed,
            "save_strategy": "no",
            "eval_strategy": "no",
            "report_to": "none",
            "logging_nan_inf_filter": False,  # what is not finite is to be seen
            "include_num_input_tokens_seen": "non_padding",
        }
