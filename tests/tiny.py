"""Language models small enough for tests: few layers, random seeded weights, byte tokens."""

from __future__ import annotations

from pathlib import Path


HIDDEN = 32
LAYERS = 2
VOCABULARY = 258  # 256 bytes, <pad>, <eos>
MAX_POSITIONS = 2048

CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def make_tiny_llm(folder: str | Path, *, seed: int = 0, chat: bool = False) -> Path:
    """Save a two-layer Llama with random weights and a byte-level tokenizer.

    Args:
        folder: made if it is not there.
        seed: of the weights; the caller's random state is left as it was.
        chat: give the tokenizer a chat template.

    Returns:
        `folder`, which `language_model.load_model` and `from_pretrained` can read.
    """
    settings = {
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "initializer_range": 0.1,
    }
    return _make(folder, "Llama", settings, seed, _byte_tokenizer(chat))  # type: ignore[arg-type]


# Small models of the families people use, with settings that would show a wrong position or mask:
# windows shorter than the prompt, layers of two kinds, attention that is not plain dot products.
FAMILIES: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("Llama", {"num_key_value_heads": 2}),
    "llama-3": ("Llama", {"num_key_value_heads": 1, "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}),
    "qwen2": ("Qwen2", {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3", {"num_key_value_heads": 2, "head_dim": 16}),
    "mistral": ("Mistral", {"num_key_value_heads": 2, "sliding_window": 12}),
    "gemma3": ("Gemma3", {"num_key_value_heads": 1, "head_dim": 16, "sliding_window": 12,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
    "phi": ("Phi", {"partial_rotary_factor": 0.5}),
    "gpt2": ("GPT2", {}),
    # attention that the trie does not serve
    "gemma2": ("Gemma2", {"num_key_value_heads": 2, "head_dim": 8}),
    "bloom": ("Bloom", {}),
    "bert": ("Bert", {}),
}  # fmt: skip


def make_tiny_family(folder: str | Path, family: str, *, seed: int = 0) -> Path:
    """Save a three-layer model of one of `FAMILIES`, with random weights and byte tokens."""
    name, settings = FAMILIES[family]
    settings = {"num_hidden_layers": 3, "initializer_range": 0.15, **settings}
    return _make(folder, name, settings, seed, _byte_tokenizer(chat=False))


def _make(  # type: ignore[no-untyped-def]
    folder: str | Path, name: str, settings: dict[str, object], seed: int, tokenizer
) -> Path:
    import torch
    import transformers

    config_class = getattr(transformers, {"Gemma3": "Gemma3Text"}.get(name, name) + "Config")
    config = config_class(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_attention_heads=4,
        max_position_embeddings=MAX_POSITIONS,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        **settings,
    )
    suffix = {"Bert": "Model", "GPT2": "LMHeadModel"}.get(name, "ForCausalLM")
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        model = getattr(transformers, name + suffix)(config).to(torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def _byte_tokenizer(chat: bool):  # type: ignore[no-untyped-def]
    """One token a byte; nothing to train, nothing to download."""
    from tokenizers import decoders
    from tokenizers import models
    from tokenizers import pre_tokenizers
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate([*alphabet, "<pad>", "<eos>"])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", padding_side="right"
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
