"""Check before the first trial that every recipe a space admits can be trained on the model."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
import contextlib
import dataclasses
from typing import Any

from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.lora.adapter import adapter
from optuna_llmbo.lora.adapter import check_recipe
from optuna_llmbo.lora.evaluate import device_of
from optuna_llmbo.lora.evaluate import response_nll
from optuna_llmbo.lora.layers import adapted_layers
from optuna_llmbo.lora.layers import fused_experts
from optuna_llmbo.lora.layers import names_of_layers
from optuna_llmbo.lora.layers import tied_layers
from optuna_llmbo.lora.memory import is_out_of_memory
from optuna_llmbo.lora.optimizer import check_optimizer
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.seeds import seeded
from optuna_llmbo.lora.tokens import collate
from optuna_llmbo.lora.tokens import Example


def preflight(model: Any, recipes: Iterable[LoRARecipe], examples: Sequence[Example]) -> None:
    """Check that a model can be trained with all of these recipes.

    Each combination of layers gets an adapter of rank 2 for a moment and computes the gradient of
    one example, because what a model of any family does with an adapter shows only then. Lack of
    memory is no mistake: the trials find out what fits.

    Args:
        model: a causal language model of `transformers`; restored afterwards.
        recipes: those that a space admits, or that stand for them.
        examples: training examples, of which the shortest is read.

    Raises:
        InputError: naming the first value that cannot be trained.
    """
    recipes = list(dict.fromkeys(recipes))
    for name in dict.fromkeys(recipe.optimizer for recipe in recipes):
        check_optimizer(name, device_of(model))
    for recipe in recipes:
        check_recipe(model, recipe)
    shortest = min(examples, key=len)
    for small in dict.fromkeys(map(smallest, recipes)):
        _try(model, small, shortest)
    for named in dict.fromkeys(recipe.target_modules for recipe in recipes):
        _tell_of_what_is_left_out(model, named)


def smallest(recipe: LoRARecipe) -> LoRARecipe:
    """The cheapest recipe that puts adapters of this kind on the same layers."""
    return LoRARecipe(
        rank=2,
        lora_alpha=2.0,
        lora_dropout=0.0,
        batch_size=1,
        learning_rate=recipe.learning_rate,
        variant="dora" if recipe.variant == "dora" else "lora",
        target_modules=recipe.target_modules,
        modules_to_save=recipe.modules_to_save,
        bias=recipe.bias,
    )


def _try(model: Any, recipe: LoRARecipe, example: Example) -> None:
    """Compute a gradient, and check that exactly the layers meant have got adapters."""
    device, wanted = device_of(model), set(adapted_layers(model, recipe.target_modules))
    try:
        with seeded(device, 0), adapter(model, recipe, seed=0):
            there = set(_with_adapters(model))
            if there != wanted:
                raise ValueError(
                    f"peft puts adapters on {_some(there - wanted)} and not on "
                    f"{_some(wanted - there)}."
                )
            model.train()
            response_nll(model, collate([example], device)).backward()
            _tell_of_what_has_no_effect(model, recipe)
    except InputError:
        raise
    except Exception as error:  # any layer of any model, and peft, may raise anything
        if is_out_of_memory(error):
            return
        raise _untrainable(model, recipe, error) from error


def _with_adapters(model: Any) -> list[str]:
    """Names of the layers that have an adapter now."""
    return [name for name, module in model.named_modules() if hasattr(module, "lora_A")]


def _untrainable(model: Any, recipe: LoRARecipe, error: Exception) -> InputError:
    fields = ("target_modules", "variant", "modules_to_save", "bias")
    default = {field.name: field.default for field in dataclasses.fields(LoRARecipe)}
    said = [f"{name}={getattr(recipe, name)!r}" for name in fields[:1]]
    said += [
        f"{name}={getattr(recipe, name)!r}"
        for name in fields[1:]
        if getattr(recipe, name) != default[name]
    ]
    reason = next(iter(str(error).splitlines()), "")
    others = [*_parts(model, without=recipe.target_modules), *names_of_layers(model)]
    return InputError(
        f"{', '.join(said)}: {type(model).__name__} cannot be trained so: "
        f"{type(error).__name__}: {reason} Name other target_modules in the space (or in "
        f"defaults=), of {', '.join(others)}."
    )


def _parts(model: Any, *, without: str) -> list[str]:
    """The words for parts that the model has."""
    found = []
    for word in ("attention", "mlp"):
        with contextlib.suppress(InputError):
            adapted_layers(model, word)
            found.append(word)
    return [word for word in found if word != without]


def _tell_of_what_has_no_effect(model: Any, recipe: LoRARecipe) -> None:
    """Warn of layers that have no gradient anywhere: the model reads their weights by itself."""
    reached: dict[str, bool] = {}
    for name in _with_adapters(model):
        own = [p for n, p in model.get_submodule(name).named_parameters() if "lora_" in n]
        leaf = name.rpartition(".")[2]
        reached[leaf] = reached.get(leaf, False) or any(p.grad is not None for p in own)
    if idle := sorted(leaf for leaf, has_gradient in reached.items() if not has_gradient):
        warn_once(
            f"target_modules={recipe.target_modules!r}: the adapters of {', '.join(idle)} have no "
            f"effect, because {type(model).__name__} reads the weights without calling the layers."
        )


def _some(names: set[str]) -> str:
    few = sorted(names)[:3]
    return f"{', '.join(few)}{', ...' if len(names) > len(few) else ''}" if few else "none more"


def _tell_of_what_is_left_out(model: Any, named: str) -> None:
    """Warn of what a reader of the recipe may take for trained, or for merged as it is."""
    words = named.split(",")
    experts = fused_experts(model)
    if experts and {"all-linear", "mlp"} & set(words):
        warn_once(
            f"target_modules={named!r}: the model's experts ({', '.join(experts)}) are no linear "
            "layers and get no adapter."
        )
    layers = adapted_layers(model, named).values()
    if any(layer is tied for layer in layers for tied in tied_layers(model)):
        warn_once(
            f"target_modules={named!r}: the model's embeddings and vocabulary projection share "
            "their weight, and only the one that is named gets an adapter. `promote --merge` "
            "gives them weights of their own; other tools need a base with "
            "tie_word_embeddings=False."
        )
