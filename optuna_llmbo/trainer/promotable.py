"""A `TrainerObjective` as `promote` needs it: its configurations, trained on all of the data."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial
import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.merge import check_adapter
from optuna_llmbo.lora.merge import check_base
from optuna_llmbo.lora.merge import check_mergeable
from optuna_llmbo.lora.merge import merge
from optuna_llmbo.lora.merge import Merged
from optuna_llmbo.lora.model_card import Base
from optuna_llmbo.trainer.configuration import Configuration
from optuna_llmbo.trainer.fits import TrainerFit
from optuna_llmbo.trainer.fits import TrainerFits
from optuna_llmbo.trainer.fits import Trains
from optuna_llmbo.trainer.fits import values_of
from optuna_llmbo.trainer.save import save_trained
from optuna_llmbo.trainer.save import trained_model


class PromotableTrainer:
    """Trains configurations on all rows, with the user's trainer, and keeps the weights.

    Args:
        objective: makes and runs the trainers.
        folder: keeps the fits, so that an interrupted call resumes.
        tell: called before each training with a description of it.
        cannot_merge: why an adapter cannot be merged; empty if nothing is known against it.
    """

    def __init__(
        self,
        objective: Trains,
        folder: Path,
        tell: Callable[[str], None] | None = None,
        *,
        cannot_merge: str = "",
    ) -> None:
        self._cannot_merge = cannot_merge
        self._objective = objective
        self._prepared = objective.prepare()
        self._fits = TrainerFits(objective, folder, tell)
        self._base = self._prepared.base_card
        (self.goal,) = objective.goals

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """What is known to determine a result besides the hyperparameters."""
        return self._prepared.fingerprint

    @property
    def n_examples(self) -> int:
        """Number of all training rows."""
        return len(self._prepared.rows.pool)

    @property
    def n_searched(self) -> int:
        """Number of training rows of a trial."""
        return self._prepared.rows.n_proxy

    @property
    def has_test(self) -> bool:
        """Whether there are test rows."""
        return self._prepared.rows.test is not None

    @property
    def base_loss(self) -> float | None:
        """The metric before any training, if it is a loss and was measured."""
        return self._objective.base_loss if self.goal.name.endswith("loss") else None

    @property
    def base(self) -> Base:
        """The base model; where the user's function loads it, known after `save`."""
        return self._base or Base("unknown", "a model that the trainer loads", None)

    @property
    def data_name(self) -> str:
        """The training data's name."""
        return str(self.fingerprint["train"])

    @property
    def default(self) -> tuple[Mapping[str, Any], Configuration] | None:
        """Parameters and values of the default configuration; None if there is none."""
        space = self._prepared.space
        if space.default is None:
            return None
        return dict(space.default_params or {}), space.default

    def recipe_of(self, trial: FrozenTrial) -> Configuration:
        """What a trial was trained with, whatever the space is now.

        Raises:
            InputError: if the trial does not say it.
        """
        return self._objective.configuration_of(trial)

    def values_of(self, recipe: Configuration) -> dict[str, Any]:
        """A configuration in plain values."""
        return values_of(recipe)

    def fit(self, recipe: Configuration, *, seed: int, name: str) -> TrainerFit:
        """Train a configuration on all rows, or read the result if it is kept.

        Raises:
            InputError: if memory runs out.
        """
        return self._fits.fit(recipe, seed=seed, name=name)

    def validation(self, recipe: Configuration, fit: TrainerFit, *, seed: int) -> float:
        """The metric on the validation rows; infinitely bad if the training diverged."""
        return fit.value

    def test(self, recipe: Configuration, fit: TrainerFit, *, seed: int) -> float:
        """The metric on the test rows, by the user's trainer with the weights of a fit."""
        with self._fits.restored(recipe, fit, seed, self._prepared.rows.test) as (trainer, _):
            return float(trainer.evaluate()[self.goal.name])

    def save(self, recipe: Configuration, fit: TrainerFit, folder: Path, *, seed: int) -> None:
        """Write a fit's adapter, or its whole model if there is none, with the tokenizer."""
        with self._fits.restored(recipe, fit, seed, None) as (trainer, start):
            self._base = self._base_of(trainer)
            save_trained(trainer, folder, self._base, start)

    def check_merge(self, folder: Path) -> None:
        """Check, before any training, that `merge` can write to a folder.

        Raises:
            InputError: if not, or if the trainer trains no adapter.
        """
        if self._cannot_merge:
            raise InputError(f"merge: {self._cannot_merge}")
        check_mergeable(self._dtype, folder)
        space = self._prepared.space
        with self._objective.untrained(space.default or space.defaults) as trainer:
            model = trained_model(trainer)
            if not hasattr(model, "peft_config"):
                raise InputError(
                    "merge: the trainer trains no adapter, so that what is saved is a whole model "
                    "already. Leave it out."
                )
            check_adapter(model)
            check_base(self._base_of(trainer).location)

    def merge(self, adapter: Path, folder: Path) -> Merged:
        """Write a model that needs no adapter, checked on texts of validation rows.

        Raises:
            InputError: if it does not give the adapter's logits.
        """
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(adapter)
        base = dataclasses.replace(self.base, tokenizer=tokenizer)
        texts = ("\n".join(_texts(row)) for row in self._prepared.rows.validation)
        examples = [tokenizer(text, return_tensors="np").input_ids[0] for text in texts if text]
        return merge(adapter, base, folder, examples=examples, dtype=self._dtype)

    def _base_of(self, trainer: Any) -> Base:
        """The base model; where the user's function loads it, by the name it was loaded by."""
        if self._base is not None:
            return self._base
        place = str(getattr(trained_model(trainer).config, "name_or_path", "") or "unknown")
        return Base(place, Path(place).name, trainer.processing_class)

    @property
    def _dtype(self) -> torch.dtype | None:
        """Type of the base model's weights; None: as in its files."""
        named = self.fingerprint.get("dtype")
        return None if named is None else getattr(torch, named.removeprefix("torch."))


def _texts(value: Any) -> list[str]:
    """All texts in a row, in the order of its columns."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for one in value.values() for text in _texts(one)]
    if isinstance(value, list | tuple):
        return [text for one in value for text in _texts(one)]
    return []
