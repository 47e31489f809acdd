"""What a trial trains with: a recipe, and hyperparameters of the trainer beyond it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from types import MappingProxyType
from typing import Any

from optuna.trial import BaseTrial
from optuna.trial import FrozenTrial

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.recorded import recipe_of
from optuna_llmbo.lora.recorded import record_recipe
from optuna_llmbo.study.trial_attributes import EXTRA
from optuna_llmbo.study.trial_attributes import RECIPE


@dataclass(frozen=True)
class Configuration:
    """All hyperparameters of a trial, whether they are searched or not."""

    recipe: LoRARecipe
    extra: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Hyperparameters that a recipe does not have, such as DPO's beta, by name."""

    def record(self, trial: BaseTrial) -> None:
        """Write it into a trial's user attributes."""
        record_recipe(trial, self.recipe)
        if self.extra:
            trial.set_user_attr(EXTRA, dict(self.extra))


def configuration_of(trial: FrozenTrial) -> Configuration:
    """The configuration that a trial of a `TrainerObjective` was trained with.

    Raises:
        InputError: if the trial does not say it.
    """
    if RECIPE not in trial.user_attrs:
        raise InputError(
            f"trial {trial.number} does not say what it was trained with ({RECIPE!r}): it is no "
            "trial of a TrainerObjective, or died before it began."
        )
    return Configuration(recipe_of(trial, {}), dict(trial.user_attrs.get(EXTRA, {})))
