"""Attach adapters to a frozen model, and detach them without a trace."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from typing import Any
import warnings

import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.evaluate import device_of
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.seeds import seeded


_PARTS = {"attention": ("attn", "attention"), "mlp": ("mlp", "ffn", "feed_forward", "ff", "fc")}
"""Names of the modules that hold the layers of each part."""

START_AT_THE_WEIGHTS = ("pissa", "olora")
"""Variants that move a part of the base weights into the adapter and start there."""

SVD_ITERATIONS = 4
"""Iterations of PiSSA's fast SVD, whose start its authors find as good as the exact one's."""


@contextlib.contextmanager
def adapter(model: Any, recipe: LoRARecipe, seed: int) -> Iterator[None]:
    """Attach a new adapter to the layers that the recipe names, for the duration of the block.

    Changes `model` in place and restores it however the block is left: modules, weights and flags
    are bitwise what they were. The adapter's weights are float32 whatever the model's dtype,
    because bfloat16 would lose small steps.

    Args:
        model: a causal language model of `transformers`.
        recipe: variant, rank, alpha, dropout, target modules, bias and initialization.
        seed: seed of the adapter's initial weights. The caller's random state is left unchanged.

    Raises:
        InputError: if the model has no such modules, or no biases to train.
    """
    import peft

    config = peft_config(model, recipe)
    children = [(m, name, child) for m in model.modules() for name, child in m.named_children()]
    trainable = {parameter: parameter.requires_grad for parameter in model.parameters()}
    kept = _weights_that_change(model, config, recipe)
    try:
        with seeded(device_of(model), seed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            peft.get_peft_model(model, config)
        if recipe.variant in START_AT_THE_WEIGHTS:
            state = peft.get_peft_model_state_dict(model, adapter_name="default")
            model.adapter_start = {name: value.clone() for name, value in state.items()}
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


def peft_config(model: Any, recipe: LoRARecipe) -> Any:
    """The recipe as peft's configuration for a model.

    Raises:
        InputError: if the model has no such modules, or no biases to train.
    """
    import peft

    if recipe.variant in START_AT_THE_WEIGHTS and getattr(model, "is_quantized", False):
        raise InputError(
            f"variant={recipe.variant!r} takes a part out of the base's weights, and these are "
            "quantized: choose another variant, or leave quantization out."
        )
    if recipe.bias != "none" and not any(n.endswith("bias") for n, _ in model.named_parameters()):
        raise InputError(f"bias={recipe.bias!r}: the model has no biases to train.")
    return peft.LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=target_modules(model, recipe.target_modules),
        bias=recipe.bias,
        init_lora_weights=initialization(recipe),
        use_rslora=recipe.variant == "rslora",
        use_dora=recipe.variant == "dora",
        task_type="CAUSAL_LM",
    )


def initialization(recipe: LoRARecipe) -> str | bool:
    """peft's name for the recipe's initialization."""
    named = {"pissa": f"pissa_niter_{SVD_ITERATIONS}", "olora": "olora"}.get(recipe.variant)
    return named or (True if recipe.init == "default" else recipe.init)


def target_modules(model: Any, named: str) -> str | list[str]:
    """The layers that get an adapter, as peft takes them: suffixes of their names.

    Args:
        model: a causal language model of `transformers`.
        named: "all-linear", "attention", "mlp", or comma-separated names.

    Raises:
        InputError: if the model has none of them.
    """
    if named == "all-linear":
        return named
    layers = _linear_layers(model)
    if named in _PARTS:
        ends = {_end(name) for name in layers if _is_in(name, _PARTS[named])}
        if not ends:
            raise InputError(
                f"target_modules={named!r}: no linear layer lies in a module that is called like "
                f"{' or '.join(_PARTS[named])}. Name the layers; there are "
                f"{', '.join(sorted({n.rpartition('.')[2] for n in layers}))}."
            )
        return sorted(ends)
    wanted = named.split(",")
    missing = [n for n in wanted if not any(f".{name}".endswith(f".{n}") for name in layers)]
    if missing:
        raise InputError(
            f"target_modules={named!r}: the model has no linear layer {', '.join(missing)}; there "
            f"are {', '.join(sorted({name.rpartition('.')[2] for name in layers}))}."
        )
    return wanted


def _linear_layers(model: Any) -> list[str]:
    """Names of all linear layers except the vocabulary projection."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    ]


def _is_in(name: str, words: tuple[str, ...]) -> bool:
    """Whether a layer lies in a module whose name is one of `words`: `h.0.attn.c_proj`."""
    parents = name.split(".")[:-1]
    return any(word in parent.split("_") or parent == word for parent in parents for word in words)


def _end(name: str) -> str:
    """The layer's own name and its parent's: in GPT-2 `c_proj` is in attention and MLP."""
    return ".".join(name.split(".")[-2:])


def _weights_that_change(
    model: Any, config: Any, recipe: LoRARecipe
) -> dict[torch.nn.Parameter, torch.Tensor]:
    """Copies of the base weights that a variant or a trained bias changes in place."""
    kept = {}
    if recipe.variant in START_AT_THE_WEIGHTS:
        ends = config.target_modules
        for name in _linear_layers(model):
            if ends == "all-linear" or any(f".{name}".endswith(f".{end}") for end in ends):
                weight = model.get_submodule(name).weight
                kept[weight] = weight.data.clone()
    if recipe.bias != "none":
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                kept[parameter] = parameter.data.clone()
    return kept
