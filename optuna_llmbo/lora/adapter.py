"""Attach adapters to a frozen model, and detach them without a trace."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import sys
from typing import Any
import warnings

import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.evaluate import device_of
from optuna_llmbo.lora.layers import adapted_layers
from optuna_llmbo.lora.layers import saved_modules
from optuna_llmbo.lora.layers import target_modules
from optuna_llmbo.lora.layers import tied_layers
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.seeds import seeded


START_AT_THE_WEIGHTS = ("pissa", "olora")
"""Variants that move a part of the base weights into the adapter and start there."""

SVD_ITERATIONS = 4
"""Iterations of PiSSA's fast SVD, whose start its authors find as good as the exact one's."""


@contextlib.contextmanager
def adapter(model: Any, recipe: LoRARecipe, seed: int) -> Iterator[None]:
    """Attach a new adapter to the layers that the recipe names, for the duration of the block.

    Changes `model` in place and restores it however the block is left: modules, weights and flags
    are bitwise what they were. The weights that are trained are float32 whatever the model's
    dtype, because bfloat16 would lose small steps; biases excepted.

    Args:
        model: a causal language model of `transformers`.
        recipe: variant, rank, alpha, dropout, target modules, modules to save, bias and
            initialization.
        seed: seed of the adapter's initial weights. The caller's random state is left unchanged.

    Raises:
        InputError: as `check_recipe`.
    """
    import peft

    config = peft_config(model, recipe)
    children = [(m, name, child) for m in model.modules() for name, child in m.named_children()]
    trainable = {parameter: parameter.requires_grad for parameter in model.parameters()}
    kept = _weights_that_change(model, recipe)
    try:
        with seeded(device_of(model), seed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")  # preflight
            peft.get_peft_model(model, config)
            _cast_copies(model)
        if recipe.variant in START_AT_THE_WEIGHTS:
            model.adapter_start = {n: value.clone() for n, value in adapter_state(model).items()}
        yield
    finally:
        for parent, name, child in children:
            if getattr(parent, name) is not child:
                setattr(parent, name, child)
        for name in ("peft_config", "adapter_start"):
            if hasattr(model, name):
                delattr(model, name)
        for parameter, flag in trainable.items():
            parameter.requires_grad_(flag)
            parameter.grad = None
        for parameter, value in kept.items():
            parameter.data = value
        model.eval()


def adapter_state(model: Any) -> dict[str, torch.Tensor]:
    """The weights of the attached adapter by peft's names, copies of whole modules included."""
    import peft

    state: dict[str, torch.Tensor] = peft.get_peft_model_state_dict(
        model, adapter_name="default", save_embedding_layers=False
    )
    return state


def peft_config(model: Any, recipe: LoRARecipe) -> Any:
    """The recipe as peft's configuration for a model.

    Raises:
        InputError: as `check_recipe`.
    """
    import peft

    check_recipe(model, recipe)
    saved = saved_modules(model, recipe.modules_to_save)
    tied = tied_layers(model)
    return peft.LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=target_modules(model, recipe.target_modules),
        bias=recipe.bias,
        init_lora_weights=initialization(recipe),
        use_rslora=recipe.variant == "rslora",
        use_dora=recipe.variant == "dora",
        modules_to_save=saved or None,
        ensure_weight_tying=any(model.get_submodule(name) in tied for name in saved),
        task_type="CAUSAL_LM",
    )


def check_recipe(model: Any, recipe: LoRARecipe) -> None:
    """Check that a model has what a recipe trains, in a form that its variant can start from.

    Raises:
        InputError: if the model has no such modules or biases, or the variant or the
            initialization cannot start from them.
    """
    layers = adapted_layers(model, recipe.target_modules)
    saved = saved_modules(model, recipe.modules_to_save)
    if both := [n for n in layers if any(f"{n}.".startswith(f"{whole}.") for whole in saved)]:
        raise InputError(
            f"modules_to_save={recipe.modules_to_save!r} with target_modules="
            f"{recipe.target_modules!r}: {', '.join(both[:3])} would have a whole copy and an "
            "adapter. Leave one of the two out."
        )
    if recipe.variant in START_AT_THE_WEIGHTS:
        _check_start(model, recipe, layers)
    if recipe.init == "orthogonal" and recipe.rank % 2:
        raise InputError(
            f"init='orthogonal' with rank={recipe.rank}: it needs an even rank. Search even ones "
            "only, with a step of 2 from 2 on or as choices."
        )
    trains_biases = {
        "none": True,
        "all": any(name.endswith("bias") for name, _ in model.named_parameters()),
        "lora_only": any(getattr(one, "bias", None) is not None for one in layers.values()),
    }
    if not trains_biases[recipe.bias]:
        where = "model has" if recipe.bias == "all" else f"layers {recipe.target_modules!r} have"
        raise InputError(f"bias={recipe.bias!r}: the {where} no biases to train.")


def largest_rank(model: Any, recipe: LoRARecipe) -> int:
    """The largest rank that a variant can start from, that of the smallest layer's weight; without
    an end (`sys.maxsize`) for variants that start anywhere."""
    if recipe.variant not in START_AT_THE_WEIGHTS:
        return sys.maxsize
    layers: Iterable[Any] = adapted_layers(model, recipe.target_modules).values()
    return min(min(layer.weight.shape) for layer in layers)


def _check_start(model: Any, recipe: LoRARecipe, layers: Mapping[str, torch.nn.Module]) -> None:
    """Check that a variant can take a part out of the layers' weights."""
    variant = f"variant={recipe.variant!r}"
    if getattr(model, "is_quantized", False):
        raise InputError(
            f"{variant} takes a part out of the base's weights, and these are quantized: choose "
            "another variant, or leave quantization out."
        )
    tied = tied_layers(model)
    for name, layer in layers.items():
        size = min(layer.weight.shape)  # type: ignore[arg-type]
        if isinstance(layer, torch.nn.Embedding) or any(layer is one for one in tied):
            raise InputError(
                f"{variant} takes a part out of the weights of linear layers, and {name} is an "
                "embedding or shares its weight: choose another variant or other target_modules."
            )
        if recipe.variant == "olora" and not isinstance(layer, torch.nn.Linear):
            raise InputError(
                f"{variant} needs layers of torch.nn.Linear, and {name} is a "
                f"{type(layer).__name__}: choose another variant."
            )
        if recipe.rank > size:
            raise InputError(
                f"{variant} with rank={recipe.rank}: the weight of {name} has a rank of at most "
                f"{size}. Search ranks up to that."
            )


def initialization(recipe: LoRARecipe) -> str | bool:
    """peft's name for the recipe's initialization."""
    named = {"pissa": f"pissa_niter_{SVD_ITERATIONS}", "olora": "olora"}.get(recipe.variant)
    return named or (True if recipe.init == "default" else recipe.init)


def _weights_that_change(model: Any, recipe: LoRARecipe) -> dict[torch.nn.Parameter, torch.Tensor]:
    """Copies of the base weights that a variant or a trained bias changes in place."""
    kept = {}
    if recipe.variant in START_AT_THE_WEIGHTS:
        for layer in adapted_layers(model, recipe.target_modules).values():
            weight: Any = layer.weight
            kept[weight] = weight.data.clone()
    if recipe.bias != "none":
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                kept[parameter] = parameter.data.clone()
    return kept


def _cast_copies(model: Any) -> None:
    """Train the copies of whole modules in float32 too."""
    from peft.utils.other import ModulesToSaveWrapper

    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            module.modules_to_save.float()
