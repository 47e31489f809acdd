"""A recipe as the configurations of peft, `transformers` and TRL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.adapter import initialization
from optuna_llmbo.lora.adapter import peft_config
from optuna_llmbo.lora.export.hf_trainer import of_recipe
from optuna_llmbo.lora.hyperparameters import NO_MODULES
from optuna_llmbo.lora.hyperparameters import TARGETS
from optuna_llmbo.lora.options import check_count
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.trainer.trl_import import trl


AT_ONCE = 8
"""Examples in memory at once, where nothing else is said."""


def lora_config(recipe: LoRARecipe, model: Any = None, **more: Any) -> Any:
    """A recipe's adapter as `peft.LoraConfig`.

    The learning rate of B (`lr_ratio`) is the optimizer's, not the adapter's: see
    `training_arguments`.

    Args:
        recipe: variant, rank, alpha, dropout, target modules, modules to save, bias and
            initialization are used.
        model: the base model, in which "attention", "mlp" and modules to save are looked up; None:
            only "all-linear" and names of layers are possible.
        **more: other arguments of `peft.LoraConfig`, or in place of what the recipe says.

    Raises:
        InputError: if the model cannot be trained so, or is needed.
    """
    import peft

    if model is not None:
        config = peft_config(model, recipe)
        for name, value in more.items():
            if not hasattr(config, name):
                raise InputError(f"peft.LoraConfig has no argument {name!r}.")
            setattr(config, name, value)
        return config
    words = recipe.target_modules.split(",")
    if unclear := [word for word in words if word in TARGETS and word != "all-linear"]:
        raise InputError(
            f"target_modules={recipe.target_modules!r}: peft takes names of layers, and which "
            f"{unclear[0]!r} stands for depends on the model: call lora_config(recipe, model)."
        )
    if recipe.modules_to_save != NO_MODULES:
        raise InputError(
            f"modules_to_save={recipe.modules_to_save!r}: whether they share a weight depends on "
            "the model: call lora_config(recipe, model)."
        )
    values = {
        "r": recipe.rank,
        "lora_alpha": recipe.lora_alpha,
        "lora_dropout": recipe.lora_dropout,
        "target_modules": "all-linear" if words == ["all-linear"] else words,
        "bias": recipe.bias,
        "init_lora_weights": initialization(recipe),
        "use_rslora": recipe.variant == "rslora",
        "use_dora": recipe.variant == "dora",
        "task_type": "CAUSAL_LM",
    }
    return peft.LoraConfig(**values | more)


def training_arguments(
    recipe: LoRARecipe, *, n_examples: int, at_once: int = AT_ONCE, **more: Any
) -> Any:
    """A recipe's optimization as `transformers.TrainingArguments`.

    Args:
        recipe: batch size, learning rate, warm-up, schedule, optimizer, weight decay and epochs
            are used.
        n_examples: training examples of an epoch, which determine the length of the warm-up.
        at_once: maximum number of examples in memory of a device. The batch size is made of its
            largest divisor up to this, accumulated, so that it is exact; on one device.
        **more: other arguments, or in place of what the recipe says.

    Raises:
        InputError: naming the hyperparameter that they cannot express.
    """
    import transformers

    return _made(transformers.TrainingArguments, recipe, n_examples, at_once, more)


def sft_config(recipe: LoRARecipe, *, n_examples: int, at_once: int = AT_ONCE, **more: Any) -> Any:
    """A recipe's optimization as `trl.SFTConfig`; arguments as for `training_arguments`.

    Raises:
        InputError: naming the hyperparameter that it cannot express, or if TRL is not installed.
    """
    return _made(trl().SFTConfig, recipe, n_examples, at_once, more)


def dpo_config(recipe: LoRARecipe, *, n_examples: int, at_once: int = AT_ONCE, **more: Any) -> Any:
    """A recipe's optimization as `trl.DPOConfig`; arguments as for `training_arguments`.

    A dropout of the recipe's needs `disable_dropout=False`: by default DPO switches that of
    adapters off, too.

    Raises:
        InputError: naming the hyperparameter that it cannot express, or if TRL is not installed.
    """
    return _made(trl().DPOConfig, recipe, n_examples, at_once, more)


def argument_values(recipe: LoRARecipe, n_examples: int, at_once: int) -> dict[str, Any]:
    """What a recipe says in the names of `transformers.TrainingArguments`.

    Raises:
        InputError: naming the hyperparameter that they cannot express.
    """
    check_count("n_examples", n_examples)
    check_count("at_once", at_once)
    if recipe.lr_ratio != 1:
        raise InputError(
            f"lr_ratio={recipe.lr_ratio:g}: arguments of the Trainer have one learning rate for A "
            "and B. Leave it (and the variant 'lora+') out, or give your Trainer an optimizer of "
            "peft.optimizers.create_loraplus_optimizer and build the arguments with "
            "dataclasses.replace(recipe, lr_ratio=1)."
        )
    if recipe.variant == "dora" and recipe.weight_decay > 0:
        raise InputError(
            f"weight_decay={recipe.weight_decay:g} with variant='dora': the Trainer would let "
            "DoRA's magnitude decay too, which is the size of the weights. Leave one of the two "
            "out."
        )
    return dict(of_recipe(recipe, n_examples, at_once))


def _made(
    config: Any, recipe: LoRARecipe, n_examples: int, at_once: int, more: Mapping[str, Any]
) -> Any:
    return config(**argument_values(recipe, n_examples, at_once) | dict(more))
