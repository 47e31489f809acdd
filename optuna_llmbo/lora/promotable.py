"""A `LoRAObjective` as `promote` needs it: its configurations, trained on all of the data."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import math
from pathlib import Path
from typing import Any

from optuna.trial import FixedTrial
from optuna.trial import FrozenTrial
import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.checkpoint import save_adapter
from optuna_llmbo.lora.fit import Fit
from optuna_llmbo.lora.fit import Fits
from optuna_llmbo.lora.merge import check_mergeable
from optuna_llmbo.lora.merge import merge
from optuna_llmbo.lora.merge import Merged
from optuna_llmbo.lora.metrics import check_all
from optuna_llmbo.lora.metrics import title_of
from optuna_llmbo.lora.metrics import TrainingSeconds
from optuna_llmbo.lora.model_card import Base
from optuna_llmbo.lora.prepare import Prepared
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.recorded import recipe_of
from optuna_llmbo.study.progress import Goal
from optuna_llmbo.study.trial_attributes import RECIPE


class PromotableLoRA:
    """Trains recipes on all of the data and reads the metric, the test examples where asked.

    Args:
        prepared: model and data.
        folder: keeps the fits, so that an interrupted call resumes.
        tell: called before each training with a description of it.

    Raises:
        InputError: if there are several metrics, or the one says nothing of the trained model.
    """

    def __init__(
        self, prepared: Prepared, folder: Path, tell: Callable[[str], None] | None = None
    ) -> None:
        _check_metric(prepared)
        self._prepared = prepared
        self._fits = Fits(prepared, folder, tell)
        (target,) = prepared.targets
        self.goal = Goal(target.name, target.direction, title_of(target.name))

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """Everything that determines a result besides the hyperparameters."""
        return self._prepared.fingerprint

    @property
    def n_examples(self) -> int:
        """Number of all training examples."""
        return len(self._prepared.pool)

    @property
    def n_searched(self) -> int:
        """Number of training examples of a trial."""
        return len(self._prepared.train)

    @property
    def has_test(self) -> bool:
        """Whether there are test examples."""
        return bool(self._prepared.test)

    @property
    def base_loss(self) -> float:
        """Validation loss of the base model, nats per response token."""
        return self._prepared.base_loss

    @property
    def base(self) -> Base:
        """The base model, as saved adapters name it."""
        return self._prepared.base

    @property
    def data_name(self) -> str:
        """The training data's name."""
        return str(self._prepared.fingerprint["train"])

    @property
    def default(self) -> tuple[Mapping[str, Any], LoRARecipe] | None:
        """Parameters and recipe of the space's default configuration; None if there is none."""
        space = self._prepared.space
        if space.default_recipe is None:
            return None
        return dict(space.default_params or {}), space.default_recipe

    def recipe_of(self, trial: FrozenTrial) -> LoRARecipe:
        """The recipe that a trial was trained with, whatever the space is now.

        Raises:
            InputError: if the trial does not say it.
        """
        recipe, space = recipe_of(trial, self.fingerprint), self._prepared.space
        if RECIPE in trial.user_attrs or space.function is None:
            return recipe
        try:
            made = space.suggest(FixedTrial(trial.params))
        except ValueError:  # the function asks for what the trial does not have
            made = None
        if made != recipe:
            raise InputError(
                f"trial {trial.number} was run by a version that did not record all its "
                "hyperparameters, and the function given as space fixes or converts some, which "
                "it may have done otherwise then: build the recipe yourself, and write it for "
                "your tool with optuna_llmbo.lora.export.write."
            )
        return recipe

    def values_of(self, recipe: LoRARecipe) -> dict[str, Any]:
        """A recipe in plain values."""
        return dataclasses.asdict(recipe)

    def fit(self, recipe: LoRARecipe, *, seed: int, name: str) -> Fit:
        """Train a configuration on all examples, or read the result if it is kept."""
        return self._fits.fit(recipe, self._prepared.pool, seed=seed, name=name)

    def validation(self, recipe: LoRARecipe, fit: Fit, *, seed: int) -> float:
        """The metric on the validation examples; infinitely bad if the training diverged."""
        if self._prepared.is_on_loss:
            return fit.loss
        if math.isinf(fit.loss):
            return math.inf if self.goal.direction == "minimize" else -math.inf
        with self._fits.model(recipe, fit, seed=seed):
            return self._prepared.metric_on(self._prepared.validation)

    def test(self, recipe: LoRARecipe, fit: Fit, *, seed: int) -> float:
        """The metric on the test examples."""
        with self._fits.model(recipe, fit, seed=seed):
            return self._prepared.metric_on(self._prepared.test)

    def save(self, recipe: LoRARecipe, fit: Fit, folder: Path, *, seed: int) -> None:
        """Write a fit's adapter, which peft and transformers can load alone."""
        with self._fits.model(recipe, fit, seed=seed) as model:
            save_adapter(model, recipe, self._prepared.base, folder)

    def check_merge(self, folder: Path) -> None:
        """Check, before any training, that `merge` can write to a folder.

        Raises:
            InputError: if not.
        """
        check_mergeable(self._dtype, folder)

    def merge(self, adapter: Path, folder: Path) -> Merged:
        """Write a model that needs no adapter, checked on validation examples.

        Raises:
            InputError: if it does not give the adapter's logits.
        """
        examples = [example.ids for example in self._prepared.validation]
        return merge(adapter, self.base, folder, examples=examples, dtype=self._dtype)

    @property
    def _dtype(self) -> torch.dtype:
        """Type of the base model's weights, before quantization if there is any."""
        dtype: torch.dtype = getattr(torch, self.fingerprint["dtype"].removeprefix("torch."))
        return dtype


def _check_metric(prepared: Prepared) -> None:
    names = [target.name for target in prepared.targets]
    if len(names) > 1 or isinstance(prepared.targets[0], TrainingSeconds):
        raise InputError(
            f"promote compares configurations by one metric of the trained model, the study is on "
            f"{' and '.join(names)}: train the one you choose with `optuna-llmbo export --trial`."
        )
    if prepared.test:
        check_all(prepared.targets, prepared.model, prepared.tokenizer, prepared.test)
