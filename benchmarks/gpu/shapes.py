"""Models of real shapes with random weights: time and memory do not depend on what they know.

The shapes are those of the models' public configurations: Llama 3.2 1B and 3B, Llama 3.1 8B, and
Qwen2.5 0.5B.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.sizes import Load
from optuna_llmbo.lora.records import Text
from optuna_llmbo.lora.tokens import Example


_LLAMA = {
    "vocab_size": 128_256,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
_SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen 0.5B": (
        "qwen2",
        {
            "vocab_size": 151_936,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32_768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
            "tie_word_embeddings": True,
        },
    ),
    "Llama 1B": (
        "llama",
        _LLAMA
        | {
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "head_dim": 64,
            "tie_word_embeddings": True,
        },
    ),
    "Llama 3B": (
        "llama",
        _LLAMA
        | {
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_hidden_layers": 28,
            "num_attention_heads": 24,
            "head_dim": 128,
            "tie_word_embeddings": True,
        },
    ),
    "Llama 8B": (
        "llama",
        _LLAMA
        | {
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "head_dim": 128,
            "tie_word_embeddings": False,
        },
    ),
}
_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}


def build(
    shape: str, device: torch.device, dtype: torch.dtype, changes: dict[str, Any] | None = None
) -> Any:
    """Make a model with random weights on the device itself.

    Args:
        shape: one of `_SHAPES`.
        device: where.
        dtype: of the weights.
        changes: what differs from the real shape.

    Returns:
        A causal language model of `transformers`, in evaluation mode, all gradients off.
    """
    from transformers import AutoConfig
    from transformers import AutoModelForCausalLM

    family, settings = _SHAPES[shape]
    config = AutoConfig.for_model(family, **settings | _SPECIAL | (changes or {}))
    with torch.random.fork_rng([device] if device.type == "cuda" else []), device:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.to(device).eval().requires_grad_(False)


def save(model: Any, folder: Path) -> None:
    """Save a model with a tokenizer of bytes, so that it can be loaded as any other."""
    from tokenizers import decoders
    from tokenizers import models
    from tokenizers import pre_tokenizers
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    symbols = ["<pad>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(symbols)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>"
    ).save_pretrained(folder)


def examples(load: Load, vocabulary: int) -> list[Example]:
    """Make the examples of one trial, each of which is in one step."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(load.steps * load.batch_size):
        length = int(rng.integers(load.shortest, load.longest + 1))
        ids = rng.integers(2, vocabulary, length, dtype=np.int32)
        made.append(Example(Text(""), ids, length - max(1, round(load.response * length))))
    return made


def weight_bytes(model: Any) -> int:
    """Return what the weights occupy, quantized or not."""
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


def training_flops(model: Any, trained: Sequence[Example]) -> float:
    """Count the operations that training an adapter for one epoch needs.

    A frozen layer is multiplied once forward and once backward, as no gradient of its weights is
    needed; the vocabulary projection only where a response token is predicted; attention twice
    backward, each position with its own past only. Padding, the adapters' own small products (1%)
    and what is computed again are not needed.

    Args:
        model: a model of `build`.
        trained: the examples.

    Returns:
        Floating-point operations, a multiplication and an addition being two.
    """
    config = model.config
    body = 0
    for name, layer in model.named_modules():
        if "layers." in name and hasattr(layer, "in_features"):
            body += layer.in_features * layer.out_features
    head = config.vocab_size * config.hidden_size
    width = config.num_attention_heads * getattr(
        config, "head_dim", config.hidden_size // config.num_attention_heads
    )
    total = 0.0
    for example in trained:
        t = len(example)
        pairs = t * (t + 1) / 2
        total += 4 * (body * t + head * example.n_response)
        total += 3 * 4 * width * config.num_hidden_layers * pairs
    return total
