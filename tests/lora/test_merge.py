"""A merged model is the base with its adapter, for transformers alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import merge as merging
from optuna_llmbo.lora.adapter import adapter
from optuna_llmbo.lora.base_model import as_base
from optuna_llmbo.lora.base_model import load_base
from optuna_llmbo.lora.checkpoint import save_adapter
from optuna_llmbo.lora.merge import merge
from optuna_llmbo.lora.merge import Merged
from optuna_llmbo.lora.recipe import LoRARecipe
from tests.lora.test_artifacts import ON_GPT2
from tests.lora.test_artifacts import VALUES
from tests.tiny import make_tiny_family
from tests.tiny import make_tiny_llm


EXAMPLES = [np.arange(20, 60, dtype=np.int32), np.arange(90, 100, dtype=np.int32)]


def recipe(**values: Any) -> LoRARecipe:
    usual = {"rank": 4, "lora_alpha": 8, "lora_dropout": 0.0, "batch_size": 2}
    return LoRARecipe.from_params({**usual, "learning_rate": 1e-2, **values})


def trained(model: Any, size: float = 0.1) -> None:
    """Move what an adapter trains away from where it starts, in place."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data += (size * noise).to(parameter.dtype)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        rows = [model(input_ids=torch.tensor(ids, dtype=torch.int64)[None]).logits[0]
            for ids in EXAMPLES]  # fmt: skip
    return torch.cat(rows).float()


def merged(
    folder: Path,
    place: Path,
    about: LoRARecipe,
    dtype: torch.dtype = torch.float32,
    size: float = 0.1,
) -> tuple[Merged, torch.Tensor, torch.Tensor]:
    """The merged model, and the logits without and with the adapter where it was trained."""
    loaded = load_base(folder, device="cpu", dtype=dtype, max_length=64)
    base, model = as_base(loaded), loaded.model
    without = logits(model)
    with adapter(model, about, seed=0):
        trained(model, size)
        model.eval()
        expected = logits(model)
        save_adapter(model, about, base, place / "adapter")
    result = merge(place / "adapter", base, place / "merged", examples=EXAMPLES, dtype=dtype)
    return result, without, expected


@pytest.mark.parametrize("value", [*VALUES, *ON_GPT2], ids=str)
def test_every_kind_of_adapter(tmp_path: Path, value: dict[str, Any]) -> None:
    """Loaded by transformers alone, it is the model that was trained; peft is not asked."""
    from transformers import AutoModelForCausalLM
    from transformers import AutoTokenizer

    if value in ON_GPT2:
        folder = make_tiny_family(tmp_path / "gpt2", "gpt2")
    else:
        folder = make_tiny_llm(tmp_path / "llama", chat=True)
    result, without, expected = merged(folder, tmp_path, recipe(**value))
    model = AutoModelForCausalLM.from_pretrained(result.folder).eval()
    assert model.dtype == torch.float32 and not hasattr(model, "peft_config")
    found = logits(model)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert (expected - without).abs().max() > 0.05  # the adapter does something
    assert result.effect == pytest.approx(float((expected - without).abs().max()), rel=1e-3)
    assert result.difference <= result.tolerance < 0.01 * result.effect
    assert result.tokens == sum(map(len, EXAMPLES))
    tokenizer = AutoTokenizer.from_pretrained(result.folder)
    assert (tokenizer.chat_template is not None) == (value not in ON_GPT2)
    names = {path.name for path in result.folder.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors"} <= names
    assert not (tmp_path / "merged.new").exists()


def test_a_base_in_bfloat16_is_rounded_once(tmp_path: Path) -> None:
    """Each merged weight is the float32 sum, rounded; the loss is what rounding explains."""
    from safetensors.torch import load_file

    folder = make_tiny_llm(tmp_path / "llama")
    about = recipe(target_modules="q_proj", variant="rslora")
    result, _, expected = merged(folder, tmp_path, about, torch.bfloat16)
    weights = load_file(result.folder / "model.safetensors")
    parts = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    start = load_file(folder / "model.safetensors")[f"{name}.weight"].to(torch.bfloat16)
    a, b = (parts[f"base_model.model.{name}.lora_{end}.weight"] for end in "AB")
    by_hand = (start.float() + 8 / 4**0.5 * b @ a).to(torch.bfloat16)
    assert weights[f"{name}.weight"].dtype == torch.bfloat16
    assert torch.equal(weights[f"{name}.weight"], by_hand)
    before = load_file(folder / "model.safetensors")
    assert all(
        torch.equal(weight, before[other].to(torch.bfloat16))
        for other, weight in weights.items()
        if "q_proj" not in other
    )
    assert result.dtype == "bfloat16" and 0 < result.difference < result.tolerance
    assert result.tolerance == pytest.approx(0.05 * float(expected.abs().max()), rel=0.05)
    assert "rounded to bfloat16 once" in merging.what_is_lost(result)


def test_an_adapter_smaller_than_rounding_is_said_to_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(merging, "warn_once", said.append)
    folder = make_tiny_llm(tmp_path / "llama")
    merged(folder, tmp_path, recipe(), torch.bfloat16, size=0.0)  # it changes nothing
    assert not said
    merged(folder, tmp_path, recipe(), torch.bfloat16, size=1e-4)
    (text,) = said
    assert "much of what was learned is lost" in text and "bfloat16" in text


@pytest.mark.parametrize("broken", ["tied weights", "no adapter", "no number"])
def test_a_model_with_other_logits_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """What an earlier call wrote stays."""
    from peft.tuners.tuners_utils import BaseTuner

    about = recipe(target_modules="lm_head")
    folder = make_tiny_family(tmp_path / "gpt2", "gpt2")  # with tied embeddings
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "earlier").touch()
    if broken == "tied weights":
        monkeypatch.setattr(merging, "_own_weights_", lambda *_: None)
    elif broken == "no adapter":
        whole = load_base(folder, device="cpu", dtype=torch.float32, max_length=64).model
        monkeypatch.setattr(BaseTuner, "unload", lambda self: whole)
    else:
        monkeypatch.setattr(merging, "_largest", lambda _: float("nan"))
    with pytest.raises(InputError, match=r"logits differ .* not kept. Use the adapter in"):
        merged(folder, tmp_path, about)
    assert [path.name for path in (tmp_path / "merged").iterdir()] == ["earlier"]
    assert not (tmp_path / "merged.new").exists()


def test_a_large_model_is_written_in_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM
    from transformers import PreTrainedModel

    real = PreTrainedModel.save_pretrained
    monkeypatch.setattr(
        PreTrainedModel,
        "save_pretrained",
        lambda self, place: real(self, place, max_shard_size="40KB"),
    )
    result, _, expected = merged(make_tiny_llm(tmp_path / "llama"), tmp_path, recipe())
    index = json.loads((result.folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    model = AutoModelForCausalLM.from_pretrained(result.folder).eval()
    assert torch.allclose(logits(model), expected, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_merged(tmp_path: Path) -> None:
    merging.check_mergeable(torch.float32, tmp_path / "merged")
    with pytest.raises(InputError, match="weights are torch.float64"):
        merging.check_mergeable(torch.float64, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is no folder"):
        merging.check_mergeable(torch.float32, tmp_path / "file")


def test_logits_are_compared_on_so_many_tokens_at_most() -> None:
    many = [np.arange(400, dtype=np.int32)] * 5
    assert [len(ids) for ids in merging._first(many, 1024)] == [400, 400, 224]
    assert [len(ids) for ids in merging._first(many[:1], 1024)] == [400]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_embedded_model(tmp_path: Path, dtype: torch.dtype) -> None:
    """A GGUF file is merged with its dequantized weights; the adapter of a real size is kept."""
    from transformers import AutoModelForCausalLM

    loaded = load_base("embedded", device="cpu", dtype=dtype, max_length=64)
    base, model = as_base(loaded), loaded.model
    text = "def area(radius):\n    return math.pi * radius ** 2\n"
    ids = np.array(loaded.tokenizer(text).input_ids, dtype=np.int32)
    rows = torch.tensor(ids, dtype=torch.int64)[None]
    with adapter(model, recipe(variant="dora"), seed=0):
        trained(model, 0.01)
        model.eval()
        with torch.no_grad():
            expected = model(input_ids=rows).logits.float()
        save_adapter(model, recipe(variant="dora"), base, tmp_path / "adapter")
    del model, loaded
    result = merge(tmp_path / "adapter", base, tmp_path / "merged", examples=[ids], dtype=dtype)
    assert result.difference < (1e-3 if dtype == torch.float32 else 0.5) * result.effect
    whole = AutoModelForCausalLM.from_pretrained(result.folder, dtype="auto").eval()
    assert whole.dtype == dtype
    with torch.no_grad():
        found = whole(input_ids=rows).logits.float()
    assert float((found - expected).abs().max()) <= result.tolerance
