"""Export facts from a study: a trial and the settings that its objective recorded."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.export.facts import Facts
from optuna_llmbo.lora.export.facts import round_alpha
from optuna_llmbo.lora.export.modules import names_of_modules
from optuna_llmbo.lora.export.modules import names_of_saved
from optuna_llmbo.lora.recorded import recipe_of
from optuna_llmbo.lora.records import ALL_TURNS
from optuna_llmbo.lora.records import DROP
from optuna_llmbo.lora.table import absolute
from optuna_llmbo.lora.table import located
from optuna_llmbo.study.chosen import chosen_trial
from optuna_llmbo.study.trial_attributes import FINGERPRINT
from optuna_llmbo.study.trial_attributes import FRACTION
from optuna_llmbo.study.trial_attributes import OPTIONS
from optuna_llmbo.study.trial_attributes import WORKING_FOLDER


def facts_of(
    study: optuna.Study,
    trial: int | None = None,
    *,
    model: str | None = None,
    train: str | None = None,
    epochs: int | None = None,
    rounded_alpha: bool = False,
    **changes: Any,
) -> Facts:
    """The facts to train a trial's configuration on all of the data.

    Args:
        study: a study of a `LoRAObjective`.
        trial: its number; None: the best complete one that breaks no constraint.
        model: a hub id or a folder; None: where `optuna-llmbo tune` found it, else as recorded in
            the study (a folder's name only).
        train: a file or a dataset's hub id; None: as `model`.
        epochs: passes over `train`; None: as in the trial.
        rounded_alpha: round alpha to a whole number, for tools that accept no other.
        **changes: other fields of `Facts` that replace what the study recorded.

    Raises:
        InputError: if the study is not of a `LoRAObjective`, there is no such complete trial, or
            its parameters are no hyperparameters.
    """
    noted = study.user_attrs.get(FINGERPRINT)
    if noted is None:
        raise InputError(
            f"the study {study.study_name!r} holds no results of a LoRAObjective: there is "
            "nothing to export."
        )
    chosen = chosen_trial(study, trial)
    recipe = recipe_of(chosen, noted)
    origin = [
        f"Trial {chosen.number} of the study {study.study_name!r}: {values_text(chosen, noted)}."
    ]
    if noted.get("load_best_model_at_end"):
        origin.append(
            f"That is its best of {noted['reports']} reports, whose adapter it kept: evaluate the "
            "training as often and load the best model at its end, to do the same."
        )
    if epochs is not None and epochs != recipe.epochs:
        origin.append(f"The trial made {recipe.epochs} passes over its data, this makes {epochs}.")
        recipe = dataclasses.replace(recipe, epochs=epochs)
    if rounded_alpha and not recipe.lora_alpha.is_integer():
        recipe, line = round_alpha(recipe)
        origin.append(line)
    if "template_date" in noted:
        origin.append(
            f"The chat template writes the current date; in the trials it is "
            f"{noted['template_date']}."
        )
    asked = study.user_attrs.get(OPTIONS, {})  # by the command line, if it made the study
    model = absolute(model) if model else _recorded(noted, asked, "model")
    saved, tied = names_of_saved(model, recipe.modules_to_save)
    own = ("prompt_column", "response_column", "chat_template")
    columns = {name: asked.get(name) for name in own}
    if isinstance(changes.get("validation"), (int, float)):
        test = asked.get("test")
        columns["test"] = test if isinstance(test, (int, float)) else None
    values: dict[str, Any] = {
        **columns,
        "ignore_columns": tuple(asked.get("ignore_columns", ())),
        "model": model,
        "recipe": recipe,
        "target_modules": names_of_modules(model, recipe.target_modules),
        "modules_to_save": saved,
        "ensure_weight_tying": tied,
        "train": absolute(train) if train else _recorded(noted, asked, "train"),
        "n_examples": n_examples_of(noted, chosen),
        "format": noted.get("format"),
        "train_on": noted.get("train_on", ALL_TURNS),
        "truncation": noted.get("truncation", DROP),
        "max_length": noted["max_length"],
        "seed": noted["seed"],
        "dtype": noted["dtype"].removeprefix("torch."),
        "origin": tuple(origin),
    }
    return Facts(**values | {name: value for name, value in changes.items() if value is not None})


def n_examples_of(noted: Mapping[str, Any], trial: FrozenTrial) -> int:
    """How many training examples there are; `proxy` may be their share or a number of them."""
    share = trial.user_attrs.get(FRACTION)
    if share is None:
        share = noted["proxy"] if isinstance(noted["proxy"], float) else 1.0
    return max(1, round(noted["train_examples"] / share))


def values_text(trial: FrozenTrial, noted: Mapping[str, Any]) -> str:
    """The trial's values by the names of the metrics."""
    names = noted.get("metric", "loss").split("+")
    if names == ["loss"]:
        return f"validation loss {trial.value:.4f} nats per token"
    pairs = zip(names, trial.values, strict=False)
    return ", ".join(f"{name} {value:.4f}" for name, value in pairs)


def _recorded(noted: Mapping[str, Any], options: Mapping[str, Any], name: str) -> str:
    """Model or data where `tune` found it, or what the study says of it."""
    given = Path(options.get(WORKING_FOLDER, "")) / str(options.get(name, ""))
    place = located(str(given)) if given.name == noted[name] else None
    return place or absolute(str(noted[name]))
