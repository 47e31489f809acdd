"""Between a `Configuration` and the arguments of TRL's file, in both directions."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
import math
import re
from typing import Any

from optuna_llmbo.errors import did_you_mean
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.export.facts import largest_divisor
from optuna_llmbo.lora.export.hf_trainer import OPTIMIZERS
from optuna_llmbo.lora.export.hf_trainer import SCHEDULES
from optuna_llmbo.lora.hyperparameters import ALIASES
from optuna_llmbo.lora.hyperparameters import NO_MODULES
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.trainer.configuration import Configuration
from optuna_llmbo.trainer.trl_file import DPO
from optuna_llmbo.trainer.trl_file import fields_of
from optuna_llmbo.trainer.trl_file import Parsed
from optuna_llmbo.trainer.trl_file import TRLFile
from optuna_llmbo.trainer.trl_file import warmup_ratio


Layers = Callable[[str], "str | list[str]"]
"""From `LoRARecipe.target_modules` to what peft takes."""

_EXPRESSIBLE = {
    "variant": ("lora", "rslora", "dora"),
    "lr_ratio": (1.0,),
    "bias": ("none",),
    "init": ("default",),
}
"""The values of a recipe that TRL's files can express, where these are not all."""
_OPTIMIZERS = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adafactor": "adafactor",
    "adamw_bnb_8bit": "adamw-8bit",
    "adamw_8bit": "adamw-8bit",
}
_SCHEDULES = {written: word for word, written in SCHEDULES.items()}
_SAID_BY = {
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "batch_size",
    "lora_target_modules": "target_modules",
    "lora_modules_to_save": "modules_to_save",
    "use_rslora": "variant",
    "use_dora": "variant",
    "warmup_steps": "warmup_ratio",
}
"""Arguments that a recipe says with another name."""
_NOT_SEARCHED = ("seed", "data_seed", "output_dir", "use_peft", "model_name_or_path")


@dataclass(frozen=True)
class FileValues:
    """What a file says, as the default configuration of a search.

    Attributes:
        defaults: of a recipe, by name.
        extra: what a recipe cannot say, by TRL's names: DPO's beta; and optimizer, schedule or
            length of the training where the file has others than a recipe knows.
        at_once: examples in memory of a device.
    """

    defaults: Mapping[str, Any]
    extra: Mapping[str, Any]
    at_once: int


def values_in(file: TRLFile, n_examples: int, default_targets: str | None) -> FileValues:
    """Read the default configuration from a file.

    Args:
        file: the file.
        n_examples: all training examples, of which a whole number of warm-up steps is a share.
        default_targets: the layers that get an adapter where the file names none, comma-separated;
            None: not known.

    Raises:
        InputError: if the file trains no adapter, or combines DoRA and rsLoRA.
    """
    parsed = file.parsed()
    training, model = parsed.training, parsed.model
    if not model.use_peft:
        raise InputError(
            f"{str(file.path)!r} trains all weights (use_peft is false): only adapters can be "
            "searched so. Set use_peft: true, or write a TrainerObjective with your own trainer."
        )
    if model.use_dora and model.use_rslora:
        raise InputError(
            f"{str(file.path)!r} has both use_dora and use_rslora, which a recipe has one of: "
            "leave one out."
        )
    variant = "dora" if model.use_dora else "rslora" if model.use_rslora else "lora"
    batch = training.per_device_train_batch_size * training.gradient_accumulation_steps
    defaults = {
        "rank": model.lora_r,
        "lora_alpha": float(model.lora_alpha),
        "lora_dropout": model.lora_dropout,
        "batch_size": batch,
        "learning_rate": training.learning_rate,
        "variant": variant,
        "weight_decay": training.weight_decay,
        "warmup_ratio": warmup_ratio(training, _steps(training, n_examples, batch)),
        "target_modules": _joined(model.lora_target_modules) or default_targets or "all-linear",
        "modules_to_save": _joined(model.lora_modules_to_save) or NO_MODULES,
    }
    extra: dict[str, Any] = {"beta": training.beta} if file.task == DPO else {}
    _say(defaults, extra, "optimizer", "optim", _text(training.optim), _OPTIMIZERS)
    schedule = _text(training.lr_scheduler_type)
    if schedule == "constant" and not defaults["warmup_ratio"]:
        schedule = SCHEDULES["constant"]
    _say(defaults, extra, "schedule", "lr_scheduler_type", schedule, _SCHEDULES)
    if training.max_steps > 0:
        extra["max_steps"] = training.max_steps
    elif float(training.num_train_epochs).is_integer() and training.num_train_epochs >= 1:
        defaults["epochs"] = int(training.num_train_epochs)
    else:
        extra["num_train_epochs"] = training.num_train_epochs
    return FileValues(defaults, extra, training.per_device_train_batch_size)


def arguments_of(
    configuration: Configuration,
    file: TRLFile,
    default: LoRARecipe,
    *,
    n_examples: int,
    at_once: int,
    layers: Layers,
) -> dict[str, Any]:
    """A configuration as arguments of TRL's file.

    Args:
        configuration: what to train with.
        file: the file: where it says the same in its own words, these stay.
        default: the file's own recipe.
        n_examples: of an epoch.
        at_once: maximum number of examples in memory of a device.
        layers: from `LoRARecipe.target_modules` to what peft takes.

    Raises:
        InputError: naming the hyperparameter that TRL's files cannot express.
    """
    recipe, extra = configuration.recipe, configuration.extra
    check_expressible(recipe)
    training = file.parsed().training
    per_device = largest_divisor(recipe.batch_size, at_once)
    values: dict[str, Any] = {
        "lora_r": recipe.rank,
        "lora_alpha": recipe.lora_alpha,
        "lora_dropout": recipe.lora_dropout,
        "use_rslora": recipe.variant == "rslora",
        "use_dora": recipe.variant == "dora",
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": recipe.batch_size // per_device,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "num_train_epochs": recipe.epochs,
        "max_steps": -1,
    }
    if recipe.target_modules != default.target_modules:
        values["lora_target_modules"] = _targets(layers(recipe.target_modules))
    if recipe.modules_to_save != default.modules_to_save:
        saved = recipe.modules_to_save
        values["lora_modules_to_save"] = None if saved == NO_MODULES else saved.split(",")
    if _OPTIMIZERS.get(_text(training.optim)) != recipe.optimizer:
        values["optim"] = OPTIMIZERS[recipe.optimizer]
    if _SCHEDULES.get(_text(training.lr_scheduler_type)) != recipe.schedule:
        values["lr_scheduler_type"] = SCHEDULES[recipe.schedule]
    values |= extra
    epoch = math.ceil(n_examples / recipe.batch_size)
    steps = values["max_steps"]
    steps = steps if steps > 0 else math.ceil(float(values["num_train_epochs"]) * epoch)
    return {**values, "warmup_steps": math.ceil(recipe.warmup_ratio * steps)}


def check_expressible(recipe: LoRARecipe) -> None:
    """Check that TRL's files can express a recipe.

    Raises:
        InputError: naming the hyperparameter.
    """
    for name, values in _EXPRESSIBLE.items():
        value = getattr(recipe, name)
        if value not in values:
            raise InputError(
                f"{name}={value!r}: TRL's files cannot express it, only "
                f"{', '.join(map(str, values))}. Leave it out of the space, or write a "
                "TrainerObjective with your own trainer."
            )
    if recipe.variant == "dora" and recipe.weight_decay > 0:
        raise InputError(
            f"weight_decay={recipe.weight_decay:g} with variant='dora': TRL would let DoRA's "
            "magnitude decay too, which is the size of the weights. Leave one of the two out."
        )


def check_searched(names: Mapping[str, Any], parsed: Parsed) -> None:
    """Check the names of a space: those that a recipe does not have are arguments of TRL.

    Raises:
        InputError: if there is no such argument, it is not to be searched, or TRL's files cannot
            express it.
    """
    known = fields_of(type(parsed.training)) | fields_of(type(parsed.model))
    for name in names:
        if name in ALIASES:
            if len(_EXPRESSIBLE.get(ALIASES[name], ("several", "values"))) == 1:
                raise InputError(
                    f"the space has {name!r}, which TRL's files cannot express: leave it out, or "
                    "write a TrainerObjective with your own trainer."
                )
            continue
        if name in _SAID_BY:
            raise InputError(f"the space has {name!r}: search {_SAID_BY[name]!r} instead.")
        if name in _NOT_SEARCHED:
            raise InputError(f"the space has {name!r}, which is no hyperparameter: leave it out.")
        if name not in known:
            raise InputError(
                f"the space has {name!r}, which is neither a hyperparameter of a LoRA recipe nor "
                f"an argument of TRL.{did_you_mean(name, {*known, *ALIASES})}"
            )


def argument(name: str, parsed: Parsed) -> Any:
    """The value of an argument."""
    return getattr(parsed.training, name, getattr(parsed.model, name, None))


def _say(
    defaults: dict[str, Any],
    extra: dict[str, Any],
    role: str,
    name: str,
    written: str,
    words: Mapping[str, str],
) -> None:
    """Say a value with the recipe's word for it, or with TRL's where a recipe has none."""
    if written in words:
        defaults[role] = words[written]
    else:
        extra[name] = written


def _steps(training: Any, n_examples: int, batch: int) -> int:
    if training.max_steps > 0:
        return int(training.max_steps)
    return math.ceil(training.num_train_epochs * math.ceil(n_examples / batch))


def _joined(modules: Any) -> str:
    return ",".join(modules) if isinstance(modules, (list, tuple)) else str(modules or "")


def _targets(found: str | list[str]) -> list[str]:
    """TRL takes the only name out of its list, and peft takes such for a pattern."""
    names = [found] if isinstance(found, str) else list(found)
    if len(names) > 1 or names == ["all-linear"]:
        return names
    return [rf"(?:.*\.)?{re.escape(names[0])}"]


def _text(value: Any) -> str:
    return str(getattr(value, "value", value))
