"""The recipe that a trial trains with, as the study keeps it: written at its start and read back.

A trial's parameters alone do not say what was trained: what the space does not search comes from
the defaults, or is fixed by a function, and both may have changed since.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

from optuna.trial import BaseTrial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.recipe import DEFAULT
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.study.trial_attributes import IS_DEFAULT
from optuna_llmbo.study.trial_attributes import RECIPE


_FIRST = frozenset({"rank", "lora_alpha", "lora_dropout", "batch_size", "learning_rate"})
"""Fields without a default value; those that are added later have one, which means as before."""


def record_recipe(trial: BaseTrial, recipe: LoRARecipe) -> None:
    """Write what a trial is going to train into its user attributes."""
    trial.set_user_attr(RECIPE, dataclasses.asdict(recipe))


def recipe_of(trial: FrozenTrial, fingerprint: Mapping[str, Any]) -> LoRARecipe:
    """The recipe that a trial was trained with, whatever the space is now.

    A trial of a version that recorded no recipes has it from its parameters and the defaults in
    the study's fingerprint.

    Args:
        trial: a trial of a `LoRAObjective`.
        fingerprint: what the study recorded of its objective.

    Raises:
        InputError: if the record cannot be read, or there is none and the parameters are no
            hyperparameters.
    """
    noted = trial.user_attrs.get(RECIPE)
    if noted is not None:
        return _from_record(trial.number, noted)
    own = {"variant": fingerprint["variant"], "epochs": fingerprint["epochs"]}
    defaults = dataclasses.replace(DEFAULT, **own, **fingerprint.get("defaults", {}))
    try:
        return LoRARecipe.from_params(trial.params, defaults)
    except InputError as error:
        raise InputError(
            f"the parameters of trial {trial.number} are no hyperparameters of a LoRA run: "
            f"{error} It was run by a version that did not record what a function given as space "
            "made of them: build the recipe yourself and use optuna_llmbo.lora.export.write."
        ) from error


def control_of(
    trials: Sequence[FrozenTrial], default: LoRARecipe | None, fingerprint: Mapping[str, Any]
) -> FrozenTrial | None:
    """The first complete trial of a default configuration; None if there is none.

    A study may hold controls of other spaces, whose default was another one.
    """
    for trial in trials:
        is_marked = trial.state == TrialState.COMPLETE and trial.user_attrs.get(IS_DEFAULT)
        if is_marked and recipe_of(trial, fingerprint) == default:
            return trial
    return None


def _from_record(number: int, noted: Any) -> LoRARecipe:
    known = {field.name for field in dataclasses.fields(LoRARecipe)}
    if not isinstance(noted, Mapping) or not _FIRST <= noted.keys() <= known:
        raise InputError(
            f"the {RECIPE!r} of trial {number} is {noted!r}: expected the hyperparameters "
            f"{', '.join(sorted(known))}. It may have been written by a later version of "
            "optuna-llmbo: use that one."
        )
    return LoRARecipe(**noted)
