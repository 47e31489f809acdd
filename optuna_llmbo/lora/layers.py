"""Which modules of a model a recipe's names stand for."""

from __future__ import annotations

from typing import Any

import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.hyperparameters import NO_MODULES
from optuna_llmbo.lora.hyperparameters import TARGETS


_PARTS = {"attention": ("attn", "attention"), "mlp": ("mlp", "ffn", "feed_forward", "ff", "fc")}
"""Names of the modules that hold the layers of each part."""

_TIED_NAMES = ("embed_tokens", "lm_head")
"""By which peft finds layers that share their weight (its `EMBEDDING_LAYER_NAMES`)."""


def target_modules(model: Any, named: str) -> str | list[str]:
    """The layers that get an adapter, as peft takes them: "all-linear", or suffixes of names.

    Args:
        model: a causal language model of `transformers`.
        named: as `LoRARecipe.target_modules`.

    Raises:
        InputError: if the model has none of them.
    """
    if named == "all-linear":
        return named
    ends: list[str] = []
    for word in named.split(","):
        ends += _ends_of(model, word, named) if word in TARGETS else [word]
    missing = [end for end in ends if not any(_ends(name, end) for name in _all_layers(model))]
    if missing:
        raise InputError(
            f"target_modules={named!r}: the model has no linear layer {', '.join(missing)}; there "
            f"are {', '.join(names_of_layers(model))}."
        )
    return ends


def adapted_layers(model: Any, named: str) -> dict[str, torch.nn.Module]:
    """The layers that get an adapter, by their full names.

    Raises:
        InputError: if the model has none of them.
    """
    ends = target_modules(model, named)
    if isinstance(ends, str):
        return linear_layers(model)
    layers = _all_layers(model)
    return {name: one for name, one in layers.items() if any(_ends(name, end) for end in ends)}


def saved_modules(model: Any, named: str) -> list[str]:
    """Full names of the modules of which a copy is trained; of tied ones both.

    Args:
        model: a causal language model of `transformers`.
        named: as `LoRARecipe.modules_to_save`.

    Raises:
        InputError: if the model lacks one of them.
    """
    if named == NO_MODULES:
        return []
    found: list[str] = []
    names = [name for name, _ in model.named_modules() if name]
    for end in named.split(","):
        fitting = [name for name in names if _ends(name, end)]
        if not fitting:
            raise InputError(
                f"modules_to_save={named!r}: the model has no module {end!r}. Its embeddings are "
                f"{', '.join(_embeddings_and_head(model))}."
            )
        found += fitting
    tied = tied_layers(model)
    if any(model.get_submodule(name) in tied for name in found):
        both = [name for name, module in model.named_modules() if module in tied]
        if not any(name.rpartition(".")[2] in _TIED_NAMES for name in both):
            raise InputError(
                f"modules_to_save={named!r}: {' and '.join(both)} share their weight, and peft "
                f"keeps it shared only where one is called {' or '.join(_TIED_NAMES)}: put "
                "adapters on them instead, with target_modules."
            )
        found += both
    return list(dict.fromkeys(found))


def linear_layers(model: Any) -> dict[str, torch.nn.Module]:
    """All linear layers except the vocabulary projection, by name."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    }


def tied_layers(model: Any) -> list[torch.nn.Module]:
    """Input embeddings and vocabulary projection, if they share their weight."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    both = head is not None and embeddings is not None
    return [embeddings, head] if both and head.weight is embeddings.weight else []


def fused_experts(model: Any) -> list[str]:
    """Names of the parameters that hold a weight for each expert: no linear layers."""
    fused = (n for n, p in model.named_parameters() if p.dim() == 3 and "experts" in n.split("."))
    return list(dict.fromkeys(".".join(name.split(".")[-2:]) for name in fused))


def names_of_layers(model: Any) -> list[str]:
    """The last parts of the names that can be given: of linear layers, then of the others."""
    linear = sorted({name.rpartition(".")[2] for name in linear_layers(model)})
    return [*linear, *_embeddings_and_head(model)]


def _all_layers(model: Any) -> dict[str, torch.nn.Module]:
    """Linear layers, embeddings and the vocabulary projection."""
    head, layers = model.get_output_embeddings(), linear_layers(model)
    for name, module in model.named_modules():
        if module is head or isinstance(module, torch.nn.Embedding):
            layers[name] = module
    return layers


def _embeddings_and_head(model: Any) -> list[str]:
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    names = (name for name, m in model.named_modules() if any(m is end for end in ends))
    return sorted({name.rpartition(".")[2] for name in names})


def _ends_of(model: Any, word: str, named: str) -> list[str]:
    layers = linear_layers(model)
    if word == "all-linear":
        return sorted({_end(name) for name in layers})
    ends = {_end(name) for name in layers if _is_in(name, _PARTS[word])}
    if not ends:
        raise InputError(
            f"target_modules={named!r}: no linear layer lies in a module that is called like "
            f"{' or '.join(_PARTS[word])}. Name the layers; there are "
            f"{', '.join(names_of_layers(model))}."
        )
    return sorted(ends)


def _is_in(name: str, words: tuple[str, ...]) -> bool:
    """Whether a layer lies in a module whose name is one of `words`: `h.0.attn.c_proj`."""
    parents = name.split(".")[:-1]
    return any(word in parent.split("_") or parent == word for parent in parents for word in words)


def _end(name: str) -> str:
    """The layer's own name and its parent's: in GPT-2 `c_proj` is in attention and MLP."""
    return ".".join(name.split(".")[-2:])


def _ends(name: str, end: str) -> bool:
    return f".{name}".endswith(f".{end}")
