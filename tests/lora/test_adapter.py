"""Which layers get an adapter and how it starts; what is left behind: see test_train."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.adapter import adapter
from optuna_llmbo.lora.evaluate import validation_loss
from optuna_llmbo.lora.layers import tied_layers
from optuna_llmbo.lora.recipe import DEFAULT
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.tokens import Example
from optuna_llmbo.lora.train import training_steps
from tests.lora.families import make_family
from tests.tiny import make_tiny_family


RECIPE = dataclasses.replace(DEFAULT, rank=4, lora_alpha=8.0, lora_dropout=0.0, batch_size=6)


def adapted(model: Any, **changes: Any) -> set[str]:
    """The layers that get an adapter, without the number of the model's layer."""
    with adapter(model, dataclasses.replace(RECIPE, **changes), seed=0):
        names = {n for n, m in model.named_modules() if hasattr(m, "lora_A")}
    return {".".join(name.split(".")[-2:]) for name in names}


ATTENTION = {f"self_attn.{letter}_proj" for letter in "qkvo"}
MLP = {f"mlp.{word}_proj" for word in ("gate", "up", "down")}


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("all-linear", ATTENTION | MLP),
        ("attention", ATTENTION),
        ("mlp", MLP),
        ("q_proj,down_proj", {"self_attn.q_proj", "mlp.down_proj"}),
    ],
)
def test_target_modules(tiny: LanguageModel, named: str, expected: set[str]) -> None:
    assert adapted(tiny.model, target_modules=named) == expected


@pytest.mark.parametrize(
    ("family", "attention", "mlp"),
    [
        ("gpt2", {"attn.c_attn", "attn.c_proj"}, {"mlp.c_fc", "mlp.c_proj"}),
        ("phi", {f"self_attn.{n}" for n in ("q_proj", "k_proj", "v_proj", "dense")},
            {"mlp.fc1", "mlp.fc2"}),
        ("bloom", {"self_attention.query_key_value", "self_attention.dense"},
            {"mlp.dense_h_to_4h", "mlp.dense_4h_to_h"}),
    ],
)  # fmt: skip
def test_parts_of_other_families(
    family: str, attention: set[str], mlp: set[str], tmp_path: Path
) -> None:
    model = load_model(resolve_source(make_tiny_family(tmp_path / family, family))).model
    assert adapted(model, target_modules="attention") == attention
    assert adapted(model, target_modules="mlp") == mlp


def test_unknown_modules(tiny: LanguageModel) -> None:
    with pytest.raises(InputError, match="no linear layer qproj; there are down_proj, gate_proj"):
        adapted(tiny.model, target_modules="qproj,v_proj")


@pytest.mark.parametrize("variant", ["pissa", "olora"])
def test_a_start_at_the_weights_themselves(
    tiny: LanguageModel, examples: list[Example], variant: str
) -> None:
    """Adapter and what is left of the weights make up the base model."""
    base = validation_loss(tiny.model, examples)
    weight = tiny.model.model.layers[0].mlp.up_proj.weight
    before = weight.detach().clone()
    with adapter(tiny.model, dataclasses.replace(RECIPE, variant=variant), seed=0):
        layer = tiny.model.model.layers[0].mlp.up_proj
        left, (a, b) = layer.base_layer.weight, (
            layer.lora_A["default"].weight, layer.lora_B["default"].weight)  # fmt: skip
        assert not torch.allclose(left, before, atol=1e-3)
        torch.testing.assert_close(left + layer.scaling["default"] * b @ a, before)
        assert validation_loss(tiny.model, examples) == pytest.approx(base, rel=1e-5)
    assert torch.equal(tiny.model.model.layers[0].mlp.up_proj.weight, before)


@pytest.mark.parametrize("init", ["gaussian", "orthogonal"])
def test_initialization(tiny: LanguageModel, init: str) -> None:
    def a(**changes: Any) -> torch.Tensor:
        with adapter(tiny.model, dataclasses.replace(RECIPE, **changes), seed=0):
            weight: torch.Tensor = tiny.model.model.layers[0].mlp.up_proj.lora_A["default"].weight
            return weight.detach().clone()

    assert not torch.equal(a(init=init), a())
    assert torch.equal(a(init=init), a(init=init))


def test_biases_are_trained_and_restored(examples: list[Example], tmp_path: Path) -> None:
    model = load_model(resolve_source(make_tiny_family(tmp_path / "gpt2", "gpt2"))).model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recipe = dataclasses.replace(RECIPE, bias="all", learning_rate=1e-2)
    with adapter(model, recipe, seed=0):
        list(training_steps(model, examples, recipe))
        biases = {n: p for n, p in model.named_parameters() if n.endswith("bias")}
        changed = {n for n, p in biases.items() if n in before and not torch.equal(p, before[n])}
        assert {"transformer.ln_f.bias", "transformer.h.0.ln_1.bias"} <= changed
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_no_biases_to_train(tiny: LanguageModel) -> None:
    with pytest.raises(InputError, match="bias='all': the model has no biases to train"):
        adapted(tiny.model, bias="all")


def test_each_field_can_be_searched_by_name() -> None:
    fields = {field.name for field in dataclasses.fields(LoRARecipe)}
    values = dataclasses.asdict(DEFAULT)
    assert LoRARecipe.from_params(values) == DEFAULT and set(values) == fields


# --- whole modules, embeddings and the vocabulary projection ---


@pytest.mark.parametrize(
    ("family", "named"),
    [
        ("llama", "lm_head"),
        ("llama", "embed_tokens"),
        ("llama", "embed_tokens,lm_head"),
        ("gpt2", "wte"),
        ("gpt2", "wte,ln_f"),
    ],
)
def test_tied_embeddings_stay_tied(
    family: str, named: str, tiny: LanguageModel, tmp_path: Path, examples: list[Example]
) -> None:
    """A copy of both is trained as one weight, and the base model is left as it was."""
    model = tiny.model
    if family == "gpt2":
        model = load_model(resolve_source(make_tiny_family(tmp_path, family))).model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    base = model.get_input_embeddings().weight
    assert base is model.get_output_embeddings().weight
    recipe = dataclasses.replace(RECIPE, modules_to_save=named, learning_rate=1e-2)
    with adapter(model, recipe, seed=0):
        embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
        assert embeddings.weight is head.weight and head.weight is not base
        assert head.weight.requires_grad and head.weight.dtype is torch.float32
        list(training_steps(model, examples, recipe))
        assert embeddings.weight is head.weight and not torch.equal(head.weight, base)
    assert model.get_output_embeddings().weight is base and not base.requires_grad
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_module_is_saved_by_its_own_name(tiny: LanguageModel) -> None:
    """peft takes "norm" for all modules whose names end so."""
    recipe = dataclasses.replace(RECIPE, modules_to_save="norm")
    with adapter(tiny.model, recipe, seed=0):
        whole = [
            n for n, p in tiny.model.named_parameters() if p.requires_grad and "lora" not in n
        ]
    assert whole == ["model.norm.modules_to_save.default.weight"]


def test_copies_are_trained_in_float32(tiny_llm: Path, examples: list[Example]) -> None:
    """In a bfloat16 model too, where small steps would be lost."""
    loaded = load_model(resolve_source(tiny_llm), device="cpu", dtype=torch.bfloat16)
    recipe = dataclasses.replace(RECIPE, modules_to_save="embed_tokens", learning_rate=1e-6)
    with adapter(loaded.model, recipe, seed=0):
        list(training_steps(loaded.model, examples, recipe))
        weight = loaded.model.get_input_embeddings().weight
        assert weight.dtype is torch.float32
        assert not torch.equal(weight, weight.bfloat16().float())
    assert loaded.model.get_input_embeddings().weight.dtype is torch.bfloat16


def test_ties_that_peft_does_not_keep(tmp_path: Path) -> None:
    model = make_family("Rwkv", tie_word_embeddings=True)
    assert len(tied_layers(model)) == 2
    with pytest.raises(InputError, match="rwkv.embeddings and head share their weight, and peft"):
        adapted(model, modules_to_save="head")


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("attention,lm_head", {*ATTENTION, "lm_head"}),
        ("all-linear,embed_tokens", {*ATTENTION, *MLP, "model.embed_tokens"}),
    ],
)
def test_parts_and_names_together(tiny: LanguageModel, named: str, expected: set[str]) -> None:
    assert adapted(tiny.model, target_modules=named) == expected
