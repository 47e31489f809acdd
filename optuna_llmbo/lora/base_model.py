"""The frozen model that adapters are trained on."""

from __future__ import annotations

from collections.abc import Sequence
import importlib.util
import json
import math
import os
from pathlib import Path
from typing import Any
import warnings

import torch

from optuna_llmbo._util.device import resolve_device
from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.lora import train as training
from optuna_llmbo.lora.model_card import Base
from optuna_llmbo.lora.tokens import Example


QUANTIZATIONS = ("4bit", "8bit")

_PROBE = "The 7 words of this line are probed."
_TOO_UNKNOWN = 0.5
"""Fraction of unknown tokens above which a tokenizer does not read a text."""
_WORSE_THAN_GUESSING = 0.5
"""Nats above the loss of a uniform guess from which on tokenizer and weights hardly belong
together: SmolLM2-135M has 1.2 with its tokens permuted, models of random weights up to 0.2."""


def load_base(
    model: str | os.PathLike[str] | None,
    *,
    device: str | torch.device | None,
    dtype: torch.dtype | None,
    max_length: int,
    quantization: str | None = None,
    gradient_checkpointing: bool = False,
) -> LanguageModel:
    """Load a causal language model to train on.

    Args:
        model: as `resolve_source` takes it.
        device: None: CUDA if available, else the CPU.
        dtype: torch.float32 or torch.bfloat16; None: whichever the hardware multiplies faster.
        max_length: number of tokens that the model must be able to read.
        quantization: "4bit" (NormalFloat with double quantization, as QLoRA: Dettmers et al. 2023,
            arXiv:2305.14314) or "8bit" (Dettmers et al. 2022, arXiv:2208.07339), by bitsandbytes
            on CUDA; None: not quantized.
        gradient_checkpointing: recompute activations in the backward pass instead of keeping
            them: less memory, about a third more time, the same gradients.

    Raises:
        InputError: for an option that is not one of these, or not for this device or model.
    """
    place = resolve_device(device)
    if dtype not in (None, torch.float32, torch.bfloat16):
        raise InputError(
            f"dtype={dtype}: expected torch.float32 or torch.bfloat16; float16 would need its "
            "loss scaled."
        )
    dtype = dtype or training.default_dtype(place)
    config = None if quantization is None else _quantization_config(quantization, place, dtype)
    if model is not None and (folder := Path(model).expanduser()).is_dir():
        check_folder(folder)
    loaded = load_model(
        resolve_source(model), device=place, dtype=dtype, quantization_config=config
    )
    check_tokenizer(loaded)
    if loaded.model.get_output_embeddings() is None:
        raise InputError(
            f"{loaded.source} is no causal language model: it predicts no next token. Choose a "
            "model of the Llama, Qwen, Mistral, Gemma, Phi or GPT-2 families."
        )
    check_causal(loaded)
    positions = getattr(loaded.model.config, "max_position_embeddings", None)
    if positions is not None and max_length > positions:
        raise InputError(
            f"max_length={max_length}: {loaded.source} reads at most {positions} tokens."
        )
    if gradient_checkpointing:
        _checkpoint_activations(loaded)
    return loaded


def as_base(loaded: LanguageModel, quantization: str | None = None) -> Base:
    """The base model of adapters, as others find it from any folder.

    Args:
        loaded: as `load_base` returns it.
        quantization: as given to `load_base`.
    """
    source, tokenizer = loaded.source, loaded.tokenizer
    if source.kind == "hub":
        return Base(source.location, source.location, tokenizer, quantization=quantization)
    place = os.path.abspath(source.location)
    name = os.path.basename(place)
    if source.kind == "gguf":
        folder = os.path.abspath(loaded.model.name_or_path)
        return Base(folder, name, tokenizer, place, quantization)
    return Base(place, name, tokenizer, quantization=quantization)


def check_folder(folder: Path) -> None:
    """Check that a folder has the parts of a model; not what is in them.

    Raises:
        InputError: naming the part that is missing.
    """
    if (adapter := folder / "adapter_config.json").is_file():
        base = _json(adapter).get("base_model_name_or_path")
        raise InputError(
            f"{str(folder)!r} holds an adapter of the model {base!r}: name that model; or merge "
            "the adapter into it (peft's merge_and_unload), save the result with its tokenizer, "
            "and name its folder."
        )
    if not (folder / "config.json").is_file():
        return  # `resolve_source` says what it expects
    for index in folder.glob("*.safetensors.index.json"):
        named = set(_json(index).get("weight_map", {}).values())
        if missing := sorted(name for name in named if not (folder / name).is_file()):
            raise InputError(
                f"{str(folder)!r} lacks {len(missing)} of the {len(named)} files of weights that "
                f"{index.name} names, {missing[0]} first: copy them there."
            )
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{str(folder)!r} has no weights (*.safetensors): copy them there, or save the model "
            "with model.save_pretrained(folder)."
        )


def check_tokenizer(loaded: LanguageModel) -> None:
    """Check that a model's tokenizer reads texts.

    Raises:
        InputError: if it makes nothing of them, as one does whose files are missing.
    """
    ids = loaded.tokenizer(_PROBE, add_special_tokens=False).input_ids
    unknown = sum(i == loaded.tokenizer.unk_token_id for i in ids)
    if not ids or unknown > _TOO_UNKNOWN * len(ids):
        raise InputError(
            f"the tokenizer of {loaded.source} makes {len(ids)} tokens of {_PROBE!r}, {unknown} "
            "of them unknown ones: its files are missing (tokenizer.json, or the vocabulary that "
            "it was made of). A checkpoint of a training may lack them: copy them from the model "
            "that was trained, or save them there with tokenizer.save_pretrained(folder)."
        )


def check_causal(loaded: LanguageModel) -> None:
    """Check that a model's predictions do not depend on the tokens that they are to predict.

    Raises:
        InputError: if they do, as those of an encoder with a language-model head.
    """
    ids = loaded.tokenizer(_PROBE, add_special_tokens=False).input_ids
    size = int(loaded.model.get_input_embeddings().weight.shape[0])
    rows = torch.tensor([[i % size for i in (*ids, last)] for last in (0, 1)])
    with torch.no_grad():
        out = loaded.model(input_ids=rows.to(loaded.device), use_cache=False).logits
    one, other = out[:, :-1].float()
    rounding = 1e-4 if loaded.dtype == torch.float32 else 0.05
    if (one - other).abs().max() > rounding * one.abs().max():
        raise InputError(
            f"{loaded.source} is no causal language model: its predictions depend on the tokens "
            "that follow. Choose a model of the Llama, Qwen, Mistral, Gemma, Phi or GPT-2 "
            "families."
        )


def check_tokens(loaded: LanguageModel, examples: Sequence[Example]) -> None:
    """Check that a model has an embedding for each token of the examples; warn of unknown ones.

    Raises:
        InputError: if not.
    """
    size = int(loaded.model.get_input_embeddings().weight.shape[0])
    largest = max((int(example.ids.max()) for example in examples), default=0)
    if largest >= size:
        raise InputError(
            f"the tokenizer of {loaded.source} makes the token {largest}, and the model has "
            f"embeddings for {size} tokens, 0 to {size - 1}: the tokenizer belongs to another "
            "model. Copy the files of the model's own."
        )
    unknown = loaded.tokenizer.unk_token_id
    if unknown is None or unknown == loaded.tokenizer.eos_token_id:
        return
    lossy = sum(bool((example.ids == unknown).any()) for example in examples)
    if lossy:
        warn_once(
            f"{lossy} of {len(examples)} examples have characters that the tokenizer of "
            f"{loaded.source} does not know: the model is trained on "
            f"{loaded.tokenizer.unk_token!r} in their place."
        )


def check_base_loss(loaded: LanguageModel, loss: float) -> None:
    """Check that the base model's loss can be that of a model that reads its own tokens.

    Raises:
        InputError: if it is not finite, or zero.
    """
    if not math.isfinite(loss) or loss <= 0:
        raise InputError(
            f"the validation loss of {loaded.source} is {loss} before any training, in "
            f"{loaded.dtype}: try dtype=torch.float32, and check the model's files."
        )
    guess = math.log(loaded.model.get_input_embeddings().weight.shape[0])
    if loss > guess + _WORSE_THAN_GUESSING:
        warn_once(
            f"the validation loss of {loaded.source} is {loss:.2f} before any training, and that "
            f"of guessing is {guess:.2f}: check that the tokenizer and the weights belong "
            "together."
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}") from error
    return content if isinstance(content, dict) else {}


def _quantization_config(quantization: str, device: torch.device, dtype: torch.dtype) -> Any:
    if quantization not in QUANTIZATIONS:
        raise InputError(
            f"quantization={quantization!r}: expected one of {', '.join(QUANTIZATIONS)}, or None."
        )
    if device.type != "cuda":
        raise InputError(
            f"quantization={quantization!r} needs a CUDA device, and the model is to be on "
            f"{device}: leave it out, and the weights are {dtype}."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(
            f"quantization={quantization!r} needs the package bitsandbytes: "
            "pip install bitsandbytes."
        )
    from transformers import BitsAndBytesConfig

    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _checkpoint_activations(loaded: LanguageModel) -> None:
    """Enable checkpointing, which acts in training mode only and not during evaluation."""
    if not getattr(loaded.model, "supports_gradient_checkpointing", False):
        raise InputError(
            f"gradient_checkpointing: {loaded.source} does not support it: leave it out, and "
            "lower micro_batch_size instead."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # transformers renames the method
        loaded.model.gradient_checkpointing_enable({"use_reentrant": False})
