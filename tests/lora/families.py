"""Tiny models whose layers are not all linear: experts, state spaces, recurrence."""

from __future__ import annotations

from typing import Any

import torch
import transformers


_COMMON: dict[str, Any] = {
    "vocab_size": 258,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "pad_token_id": 256,
    "bos_token_id": None,
    "eos_token_id": 257,
}
_EXPERTS: dict[str, Any] = {"num_key_value_heads": 2, "num_experts_per_tok": 2}
SETTINGS: dict[str, dict[str, Any]] = {
    "Mixtral": {**_EXPERTS, "num_local_experts": 4},
    "Qwen2Moe": {**_EXPERTS, "num_experts": 4, "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16, "decoder_sparse_step": 1},
    "Qwen3Moe": {**_EXPERTS, "num_experts": 4, "moe_intermediate_size": 16, "head_dim": 8},
    "GraniteMoe": {**_EXPERTS, "num_local_experts": 4},
    "Phimoe": {**_EXPERTS, "num_local_experts": 4},
    "DeepseekV3": {**_EXPERTS, "num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 1,
        "topk_group": 1, "first_k_dense_replace": 1, "kv_lora_rank": 8, "q_lora_rank": 8,
        "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
        "moe_intermediate_size": 16},
    "Mamba": {"state_size": 4},
    "Mamba2": {"state_size": 4, "num_heads": 8, "head_dim": 8, "n_groups": 1, "expand": 2},
    "Jamba": {**_EXPERTS, "num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1,
        "expert_layer_period": 2, "expert_layer_offset": 1, "mamba_d_state": 4,
        "mamba_dt_rank": 4},
    "Rwkv": {"attention_hidden_size": 32},
    "RecurrentGemma": {"num_key_value_heads": 1, "lru_width": 32, "attention_window_size": 16,
        "block_types": ("recurrent", "attention"), "head_dim": 8},
    "GPT2": {},
    "Llama": {"num_key_value_heads": 2},
}  # fmt: skip


def make_family(name: str, **settings: Any) -> Any:
    """A two-layer model of a family with seeded random weights, in evaluation mode."""
    head = "LMHeadModel" if name == "GPT2" else "ForCausalLM"
    config = getattr(transformers, f"{name}Config")(**{**_COMMON, **SETTINGS[name], **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, name + head)(config)
    return model.eval().requires_grad_(False)
