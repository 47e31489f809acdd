"""Which layers "attention" or "mlp" stands for: the tools take names."""

from __future__ import annotations

from typing import Any

import torch

from optuna_llmbo.embedding.language_model import quiet_transformers
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.hyperparameters import NO_MODULES
from optuna_llmbo.lora.hyperparameters import TARGETS
from optuna_llmbo.lora.layers import saved_modules
from optuna_llmbo.lora.layers import target_modules
from optuna_llmbo.lora.layers import tied_layers


def names_of_modules(model: str, named: str) -> str | tuple[str, ...]:
    """The layers that get an adapter, as `Facts` takes them.

    For a part, the model's layers are built from its configuration, without weights.

    Args:
        model: a hub id or a folder.
        named: as `LoRARecipe.target_modules`.

    Returns:
        "all-linear", or ends of names, which are as short as they can be without meaning more.

    Raises:
        InputError: if the configuration is needed and cannot be read, or the model has no such
            part.
    """
    if named == "all-linear":
        return named
    words = named.split(",")
    if not set(words) & set(TARGETS):
        return tuple(words)
    layers = _without_weights(model, f"target_modules={named!r}")
    ends = target_modules(layers, named)
    names = [name for name, _ in layers.named_modules()]
    return tuple(dict.fromkeys(_shortened(end, ends, names) for end in ends))


def names_of_saved(model: str, named: str) -> tuple[tuple[str, ...], bool]:
    """The modules of which a whole copy is trained, as `Facts` takes them.

    The model's layers are built from its configuration, without weights.

    Args:
        model: a hub id or a folder.
        named: as `LoRARecipe.modules_to_save`.

    Returns:
        Full names, and whether they share their weight.

    Raises:
        InputError: if the configuration cannot be read, or the model has no such modules.
    """
    if named == NO_MODULES:
        return (), False
    layers = _without_weights(model, f"modules_to_save={named!r}")
    layers.tie_weights()
    names, tied = saved_modules(layers, named), tied_layers(layers)
    return tuple(names), any(layers.get_submodule(name) in tied for name in names)


def _shortened(end: str, ends: str | list[str], names: list[str]) -> str:
    """The last part of an end, if all modules that are called so are among those meant."""
    last = end.rpartition(".")[2]
    alike = [f".{name}" for name in names if name.rpartition(".")[2] == last]
    is_clear = all(any(name.endswith(f".{e}") for e in ends) for name in alike)
    return last if is_clear else end


def _without_weights(model: str, asked: str) -> Any:
    import transformers

    try:
        source = resolve_source(model)
        with quiet_transformers():
            config = transformers.AutoConfig.from_pretrained(source.location)
            with torch.device("meta"):
                return transformers.AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"{asked}: to name the layers, the configuration of the model "
            f"{model!r} is needed, and cannot be read: {reason} Say with --model "
            "where the model is."
        ) from error
