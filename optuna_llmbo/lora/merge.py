"""Merge an adapter into its base model, and check that the result is the same model."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
from dataclasses import dataclass
from pathlib import Path
import shutil
from typing import Any
import warnings

import numpy as np
import torch

from optuna_llmbo.embedding.language_model import quiet_transformers
from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.lora.checkpoint import writing
from optuna_llmbo.lora.model_card import Base


MOST_TOKENS = 1024
"""Tokens on which logits are compared; a wrong merge shows at each, and they take memory."""

ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}
"""Difference of logits that rounding weights to a type explains, relative to the largest logit. A
weight is rounded by up to 2^-24, 2^-8 or 2^-11 of its size, and each layer adds to it."""


@dataclass(frozen=True)
class Merged:
    """A merged model, and how its logits differ from those of base model and adapter."""

    folder: Path
    dtype: str
    """Type of its weights, such as "bfloat16"."""
    difference: float
    """Largest absolute difference between its logits and those with the adapter."""
    effect: float
    """Largest absolute difference that the adapter makes to the base model's logits."""
    tolerance: float
    """Largest difference that rounding to `dtype` explains."""
    tokens: int
    """Tokens of examples at which the logits were compared."""


def merge(
    adapter: Path,
    base: Base,
    folder: Path,
    *,
    examples: Sequence[np.ndarray],
    dtype: torch.dtype | None,
) -> Merged:
    """Write the base model with an adapter in its weights, for transformers without peft.

    The sum is made in float32, layer by layer, and rounded to `dtype` once. Runs on the CPU, in
    the memory of one model. Embeddings and vocabulary projection that share their weight and have
    an adapter on one of them are written apart. A base that was quantized in training is merged
    with its weights as they are before quantization.

    Args:
        adapter: a folder in peft's format.
        base: the model that it belongs to.
        folder: created, or replaced if it exists, once the result has been checked.
        examples: token ids, (t,) each; up to `MOST_TOKENS` of them are read for the check.
        dtype: type that the base had in training; None: the one of its files.

    Raises:
        InputError: if peft cannot merge the adapter, the folder cannot be written, or the written
            model's logits differ from those with the adapter by more than rounding explains.
    """
    ids = _first(examples, MOST_TOKENS)
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    with quiet_transformers(), _quiet_peft():
        model = _loaded(base.location, dtype)
        dtype = model.dtype
        without = _logits(model, ids)
        adapted = _adapted(model, adapter)
        wanted = _logits(adapted, ids)
        whole = _merged(adapted, dtype)
        with writing(folder):
            whole.save_pretrained(new)
            base.tokenizer.save_pretrained(new)
        del model, adapted, whole
        found = _logits(_loaded(str(new), dtype), ids)
    result = Merged(
        folder=folder,
        dtype=str(dtype).removeprefix("torch."),
        difference=_largest(found - wanted),
        effect=_largest(wanted - without),
        tolerance=ROUNDING[dtype] * _largest(wanted),
        tokens=len(wanted),
    )
    if not result.difference <= result.tolerance:  # nan is not
        shutil.rmtree(new, ignore_errors=True)
        raise InputError(_differs(result, adapter))
    if result.difference > result.effect / 2:
        warn_once(_lost(result))
    with writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        new.replace(folder)
    return result


def check_mergeable(dtype: torch.dtype | None, folder: Path | None = None) -> None:
    """Check, before any training, that a model of a type can be merged into a folder.

    Raises:
        InputError: if not.
    """
    if dtype is not None and dtype not in ROUNDING:
        raise InputError(
            f"merge: the base model's weights are {dtype}, and merged models are written in "
            f"{', '.join(str(one).removeprefix('torch.') for one in ROUNDING)}."
        )
    if folder is not None and folder.exists() and not folder.is_dir():
        raise InputError(f"merge: {str(folder)!r} is no folder: remove it, or name another place.")


def check_base(location: str) -> None:
    """Check, before any training, that transformers alone can load a base model.

    Raises:
        InputError: if it cannot read its configuration.
    """
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(location)
    except (OSError, ValueError) as error:
        raise _not_loaded(location, error) from error


def check_adapter(adapted: Any) -> None:
    """Check that the adapter of a model is a change of its weights.

    Raises:
        InputError: if it is something else, such as a prompt.
    """
    if not hasattr(adapted.base_model, "unload"):
        kind = adapted.peft_config["default"].peft_type
        raise InputError(f"merge: an adapter of the type {kind} is no change of weights.")


def what_is_lost(merged: Merged) -> str:
    """How a merged model differs from base model and adapter, in a sentence or two."""
    text = (
        f"On {merged.tokens:,} tokens of validation examples its logits differ from those with "
        f"the adapter by at most {merged.difference:.2g}; the adapter changes those of the base "
        f"model by up to {merged.effect:.2g}."
    )
    if merged.dtype == "float32":
        return text
    return (
        f"{text} The sum of weights and adapter was made in float32 and rounded to {merged.dtype} "
        "once; the adapter itself is float32, and loses nothing where it is used by itself."
    )


def _first(examples: Sequence[np.ndarray], most: int) -> list[torch.Tensor]:
    """Token ids of the first examples, up to a number of tokens; the last one may be cut."""
    found: list[torch.Tensor] = []
    for ids in examples:
        if most <= 0:
            break
        found.append(torch.as_tensor(np.asarray(ids[:most]), dtype=torch.int64))
        most -= len(ids)
    return found


def _loaded(location: str, dtype: torch.dtype | None) -> Any:
    """The model at a place, as transformers alone loads it."""
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(
            location, dtype=dtype or "auto", use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise _not_loaded(location, error) from error
    check_mergeable(model.dtype)
    return model.eval().requires_grad_(False)


def _not_loaded(location: str, error: Exception) -> InputError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return InputError(f"merge: cannot load the base model {location!r}: {reason}")


def _adapted(model: Any, adapter: Path) -> Any:
    """The model with the adapter, as peft loads it.

    Raises:
        InputError: if the adapter does not fit, as where the trainer has changed the vocabulary.
    """
    import peft

    try:
        adapted = peft.PeftModel.from_pretrained(model, str(adapter)).eval()
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"merge: the adapter in {str(adapter)!r} does not fit the base model "
            f"{model.name_or_path!r} as it is in its files: {reason}"
        ) from error
    check_adapter(adapted)
    return adapted


@torch.no_grad()
def _logits(model: Any, examples: Sequence[torch.Tensor]) -> torch.Tensor:
    """(tokens of all examples, v) float32, computed in float32 whatever the weights' type: what
    differs is due to the weights and not to the rounding of activations, which is larger."""
    with _computing_in_float32(model):
        rows = [model(input_ids=ids[None], use_cache=False).logits[0].float() for ids in examples]
    return torch.cat(rows)


@contextlib.contextmanager
def _computing_in_float32(model: torch.nn.Module) -> Iterator[None]:
    """Context in which each module's weights are float32 while it runs, so that the memory is
    that of one more layer; they are restored without loss."""

    def widen_(module: torch.nn.Module, _: Any) -> None:
        for weight in module.parameters(recurse=False):
            weight.data = weight.data.float()

    def narrow_(module: torch.nn.Module, *_: Any) -> None:
        for name, weight in module.named_parameters(recurse=False):
            weight.data = weight.data.to(types[module, name])

    modules = list(model.modules())
    types = {
        (module, name): weight.dtype
        for module in modules
        for name, weight in module.named_parameters(recurse=False)
    }
    hooks = [module.register_forward_pre_hook(widen_) for module in modules]
    hooks += [module.register_forward_hook(narrow_, always_call=True) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _merged(adapted: Any, dtype: torch.dtype) -> Any:
    """The model without peft, with the adapter in its weights; changes it in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in adapted.modules():
        if isinstance(layer, BaseTunerLayer):
            inner = layer.get_base_layer()
            _own_weights_(adapted, inner)
            inner.float()
            layer.merge()
            inner.to(dtype)
    model = adapted.base_model.unload().to(dtype)
    _say_whether_tied_(model)
    return model


def _own_weights_(model: torch.nn.Module, layer: torch.nn.Module) -> None:
    """Give a layer weights of its own, in place, where another one shares them: tied embeddings
    and projection, of which one has an adapter."""
    for name, weight in list(layer.named_parameters(recurse=False)):
        if sum(weight is p for m in model.modules() for p in m.parameters(recurse=False)) > 1:
            setattr(layer, name, torch.nn.Parameter(weight.clone(), requires_grad=False))


def _say_whether_tied_(model: Any) -> None:
    """Note in the configuration, in place, if embeddings and projection are no longer one."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is not None and head.weight is not embeddings.weight:
        model.config.tie_word_embeddings = False
        model.config.get_text_config().tie_word_embeddings = False


def _largest(values: torch.Tensor) -> float:
    return float(values.abs().max())


def _differs(result: Merged, adapter: Path) -> str:
    return (
        f"the merged model's logits differ from those with the adapter by up to "
        f"{result.difference:.3g}, and rounding to {result.dtype} explains "
        f"{result.tolerance:.2g}: it is not kept. Use the adapter in "
        f"{str(adapter)!r}, which is complete, with peft."
    )


def _lost(result: Merged) -> str:
    return (
        f"the adapter changes logits by up to {result.effect:.2g}, and rounding the merged "
        f"weights to {result.dtype} by up to {result.difference:.2g}: much of what was learned "
        "is lost in the merged model. Use the adapter, or train on a base in float32."
    )


@contextlib.contextmanager
def _quiet_peft() -> Iterator[None]:
    """Without what peft says of tied and transposed weights, which are handled."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="peft")
        yield
