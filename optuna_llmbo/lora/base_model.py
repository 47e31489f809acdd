"""The frozen model that adapters are trained on."""

from __future__ import annotations

import importlib.util
import os
from typing import Any
import warnings

import torch

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import train as training


QUANTIZATIONS = ("4bit", "8bit")


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
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if dtype not in (None, torch.float32, torch.bfloat16):
        raise InputError(
            f"dtype={dtype}: expected torch.float32 or torch.bfloat16; float16 would need its "
            "loss scaled."
        )
    dtype = dtype or training.default_dtype(place)
    config = None if quantization is None else _quantization_config(quantization, place, dtype)
    loaded = load_model(
        resolve_source(model), device=place, dtype=dtype, quantization_config=config
    )
    if loaded.model.get_output_embeddings() is None:
        raise InputError(
            f"{loaded.source} is no causal language model: it predicts no next token. Choose a "
            "model of the Llama, Qwen, Mistral, Gemma, Phi or GPT-2 families."
        )
    positions = getattr(loaded.model.config, "max_position_embeddings", None)
    if positions is not None and max_length > positions:
        raise InputError(
            f"max_length={max_length}: {loaded.source} reads at most {positions} tokens."
        )
    if gradient_checkpointing:
        _checkpoint_activations(loaded)
    return loaded


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
