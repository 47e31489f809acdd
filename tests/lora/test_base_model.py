"""The frozen base: quantized, or with activations computed again."""

from __future__ import annotations

from collections.abc import Callable
import json
import math
from pathlib import Path
import shutil
from typing import Any

from optuna.trial import FixedTrial
import pytest
import torch
import transformers
from transformers.models.llama import modeling_llama

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.lora import tokens
from optuna_llmbo.lora.adapter import adapter
from optuna_llmbo.lora.base_model import check_base_loss
from optuna_llmbo.lora.base_model import check_tokens
from optuna_llmbo.lora.base_model import load_base
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.records import Pair


Make = Callable[..., LoRAObjective]


def test_checkpointing_changes_nothing_but_what_is_computed_twice(
    make_objective: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = modeling_llama.LlamaMLP.forward
    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", lambda *a: calls.append(1) or real(*a))  # type: ignore[func-returns-value]
    losses, counts = [], []
    for on in (False, True):
        objective = make_objective(gradient_checkpointing=on)
        params = {**objective.default_params, "lora_dropout": 0.2}
        calls.clear()
        losses.append(objective(FixedTrial(params)))
        counts.append(len(calls))
    assert losses[0] == losses[1]
    assert counts[1] > counts[0]


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_quantization_needs_cuda(make_objective: Make, quantization: str) -> None:
    with pytest.raises(InputError, match="needs a CUDA device, and the model is to be on cpu"):
        make_objective(quantization=quantization).prepare()


def test_unknown_quantization(make_objective: Make) -> None:
    with pytest.raises(InputError, match="quantization='3bit': expected one of 4bit, 8bit"):
        make_objective(quantization="3bit").prepare()


def test_what_needs_the_weights_as_they_are(tiny_llm: Path) -> None:
    base = load_base(tiny_llm, device="cpu", dtype=torch.float32, max_length=64).model
    base.is_quantized = True
    recipe = LoRARecipe.from_params({"variant": "pissa"})
    with pytest.raises(InputError, match="these are quantized"), adapter(base, recipe, seed=0):
        pass


# --- folders that lack a part ---


def load(folder: Path) -> LanguageModel:
    return load_base(folder, device="cpu", dtype=torch.float32, max_length=64)


@pytest.fixture
def folder(tiny_llm: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be damaged."""
    return Path(shutil.copytree(tiny_llm, tmp_path / "model [v1]"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def without(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


def shards(folder: Path) -> None:
    load(folder).model.save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink(missing_ok=True)


def lose_a_shard(folder: Path) -> None:
    shards(folder)
    without(folder, sorted(path.name for path in folder.glob("model-00002*"))[0])


def lose_all_shards(folder: Path) -> None:
    shards(folder)
    without(folder, *(path.name for path in folder.glob("model-*")))


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def make_adapter(folder: Path, *, alone: bool) -> None:
    settings = {"peft_type": "LORA", "base_model_name_or_path": "org/base"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    if alone:
        without(folder, "config.json", "model.safetensors")


def no_tokenizer(folder: Path) -> None:
    without(folder, "tokenizer.json", "tokenizer_config.json")


def no_vocabulary(name: str) -> Callable[[Path], None]:
    """`transformers` makes such tokenizers without a word; their vocabulary is empty."""

    def damage(folder: Path) -> None:
        without(folder, "tokenizer.json")
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_tokenizer, "cannot load the language model"),
        (no_vocabulary("GPT2Tokenizer"), "makes 0 tokens of .* its files are missing"),
        (no_vocabulary("Qwen2Tokenizer"), "tokenizer.save_pretrained"),
        (no_vocabulary("LlamaTokenizer"), "its files are missing"),
        (no_vocabulary("GemmaTokenizer"), "of them unknown ones: its files are missing"),
        (lambda f: without(f, "config.json"), "nor a folder with a config.json"),
        (lambda f: (f / "config.json").write_text("{"), "cannot load the language model"),
        (lambda f: without(f, "model.safetensors"), r"has no weights \(.*save_pretrained\(folder"),
        (lose_a_shard, "lacks 1 of the .* files of weights that .*index.json names, model-00002"),
        (lose_all_shards, "lacks .* model-00001"),
        (cut, "cannot load the language model"),
        (lambda f: change(f / "config.json", num_hidden_layers=3), "lack 9 weights.*config.json"),
        (lambda f: change(f / "config.json", hidden_size=64), "cannot load the language model"),
        (lambda f: change(f / "config.json", vocab_size=99), "cannot load the language model"),
        (lambda f: make_adapter(f, alone=True), "an adapter of the model 'org/base': name that"),
        (lambda f: make_adapter(f, alone=False), "merge_and_unload"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "cannot load the language model"),
    ],
)
def test_what_a_folder_lacks(damage: Callable[[Path], None], message: str, folder: Path) -> None:
    assert load(folder).device.type == "cpu"
    damage(folder)
    with pytest.raises(InputError, match=message):
        load(folder)


def test_weights_that_are_not_used_are_told(folder: Path, warnings_logged: list[str]) -> None:
    change(folder / "config.json", num_hidden_layers=1)
    load(folder)
    (line,) = warnings_logged
    assert "have 9 weights that the model does not use, such as model.layers.1." in line


def test_shards_are_read(folder: Path) -> None:
    expected = load(folder).fingerprint
    shards(folder)
    assert load(folder).fingerprint == expected


@pytest.mark.parametrize("suffix", ["ForMaskedLM", "LMHeadModel"])
def test_a_model_that_looks_both_ways(suffix: str, folder: Path) -> None:
    """As a causal one it would read the answers that it is to give."""
    settings = {"num_hidden_layers": 1, "num_attention_heads": 4, "initializer_range": 0.15}
    config = transformers.BertConfig(vocab_size=258, hidden_size=32, **settings)
    getattr(transformers, f"Bert{suffix}")(config).save_pretrained(folder)
    with pytest.raises(InputError, match="is no causal language model"):
        load(folder)


def test_an_encoder_decoder(folder: Path) -> None:
    change(folder / "config.json", is_encoder_decoder=True)
    with pytest.raises(InputError, match="encoder-decoder models are not supported"):
        load(folder)


def test_a_tokenizer_of_a_larger_vocabulary(make_objective: Make, folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["count", "on"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match="makes the token 25[89].* embeddings for 258 tokens"):
        make_objective(model=folder).prepare()


def test_a_larger_vocabulary_that_is_not_used(make_objective: Make, folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "<another pad>"})
    tokenizer.save_pretrained(folder)
    assert make_objective(model=folder).base_loss == make_objective().base_loss


def test_unknown_characters_are_told(folder: Path, warnings_logged: list[str]) -> None:
    loaded = load(folder)
    examples = tokens.encode([Pair("a", "b"), Pair("a", "c")], loaded.tokenizer, 64)
    check_tokens(loaded, examples)
    assert warnings_logged == []
    loaded.tokenizer.unk_token = "b"
    check_tokens(loaded, examples)
    (line,) = warnings_logged
    assert "1 of 2 examples have characters that the tokenizer" in line


def test_a_base_loss_that_cannot_be(tiny: LanguageModel, warnings_logged: list[str]) -> None:
    guess = math.log(258)
    check_base_loss(tiny, guess + 0.4)
    assert warnings_logged == []
    check_base_loss(tiny, guess + 2)
    (line,) = warnings_logged
    assert "is 7.55 before any training, and that of guessing is 5.55" in line
    for loss in (0.0, math.nan, math.inf):
        with pytest.raises(InputError, match="before any training"):
            check_base_loss(tiny, loss)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_training_on_a_quantized_base(make_objective: Make, quantization: str) -> None:
    pytest.importorskip("bitsandbytes")
    objective = make_objective(quantization=quantization, device="cuda", dtype=torch.bfloat16)
    params = {**objective.default_params, "learning_rate": 5e-3}
    assert objective(FixedTrial(params)) < objective.base_loss  # type: ignore[operator]
