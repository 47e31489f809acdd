"""An adapter is loaded with peft and transformers alone, from anywhere."""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
import shutil
import subprocess
import sys
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.distributions import IntDistribution
import pytest
import torch

from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.lora.base_model import as_base
from optuna_llmbo.lora.base_model import load_base
from optuna_llmbo.lora.chat_template import PLAIN
from optuna_llmbo.lora.model_card import Base
from optuna_llmbo.lora.model_card import how_to_load
from optuna_llmbo.promote import promote
from tests.tiny import make_tiny_family
from tests.tiny import make_tiny_llm


Make = Callable[..., LoRAObjective]
BATCH = {"batch_size": IntDistribution(9, 9)}

ELSEWHERE = """
import json, sys
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

found = {}
for folder in sys.argv[2:]:
    model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(sys.argv[1], return_tensors="pt").input_ids
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    found[folder] = [tokenizer.chat_template, logits.flatten().tolist()]
print(json.dumps(found))
assert "optuna_llmbo" not in sys.modules
"""


def loaded_elsewhere(text: str, folders: list[Path], work: Path) -> dict[str, Any]:
    """Chat template and logits by folder, read by another process in another working folder."""
    work.mkdir(exist_ok=True)
    command = [sys.executable, "-c", ELSEWHERE, text, *map(str, folders)]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def logits_of(text: str) -> Callable[..., float]:
    """An extra metric that keeps the logits of the trained model."""

    def measure(model: Any, tokenizer: Any, examples: Any) -> float:
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            kept.append(model(input_ids=ids).logits.flatten())
        return 0.0

    kept: list[torch.Tensor] = []
    measure.kept = kept  # type: ignore[attr-defined]
    return measure


VALUES: list[dict[str, Any]] = [
    *({"variant": v} for v in ("lora", "rslora", "dora", "pissa", "olora", "lora+")),
    {"target_modules": "q_proj,v_proj"},
    {"target_modules": "attention,lm_head"},
    {"target_modules": "all-linear,embed_tokens"},
    {"target_modules": "lm_head,embed_tokens"},
    {"modules_to_save": "lm_head"},
    {"modules_to_save": "embed_tokens,norm"},
    {"modules_to_save": "embed_tokens", "variant": "pissa"},
]
ON_GPT2: list[dict[str, Any]] = [
    {"bias": "all"},
    {"bias": "lora_only", "variant": "dora"},
    {"bias": "all", "variant": "pissa"},
    {"modules_to_save": "wte", "target_modules": "c_attn,mlp"},
]


def kept_adapter(objective: LoRAObjective, value: dict[str, Any]) -> Path:
    """The adapter that a study of one trial keeps; the base model is as it was."""
    study = optuna.create_study()
    before = {n: p.clone() for n, p in objective.prepare().model.state_dict().items()}
    study.optimize(objective, n_trials=1)
    after = objective.prepare().model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items()), value
    adapter = Path(study.trials[0].user_attrs["adapter"])
    assert adapter.is_absolute() and adapter.is_dir()
    return adapter


@pytest.mark.long
def test_adapters_of_every_kind_load_from_elsewhere(
    make_objective: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All variants, layers, biases and whole modules, on tied embeddings; a promoted one; with
    folders that are given relatively, and moved afterwards."""
    here = tmp_path / "here"
    make_tiny_llm(here / "llama", chat=True)
    make_tiny_family(here / "gpt2", "gpt2")
    monkeypatch.chdir(here)
    text = "count on from 7"
    metric = logits_of(text)
    cases = [*(("llama", value) for value in VALUES), *(("gpt2", value) for value in ON_GPT2)]
    folders: list[Path] = []
    for i, (model, value) in enumerate(cases):
        objective = make_objective(
            model=model,
            space=BATCH | {name: CategoricalDistribution([one]) for name, one in value.items()},
            defaults={"learning_rate": 1e-2, "rank": 4},
            folder="trials",
            keep=99,
            reports=1,
            extra_metrics={"logits": metric},
        )
        adapter = kept_adapter(objective, value)
        folders.append(Path(shutil.move(adapter, tmp_path / f"moved {i}")))
    promoted = promoted_adapter(make_objective)
    found = loaded_elsewhere(text, [*folders, promoted], tmp_path / "there")
    kept = metric.kept[1::2]  # type: ignore[attr-defined]  # each is called before its search too
    for folder, (model, value), expected in zip(folders, cases, kept, strict=True):
        template, logits = found[str(folder)]
        assert template is not None
        assert (template == PLAIN) == (model == "gpt2")
        assert torch.allclose(torch.tensor(logits), expected, rtol=1e-4, atol=1e-4), value
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(here / model)
        assert "AutoPeftModelForCausalLM" in (folder / "README.md").read_text()
    assert len({tuple(logits) for _, logits in found.values()}) == len(found)  # each has trained


def promoted_adapter(make_objective: Make) -> Path:
    """A promoted adapter with the chat template of its model and a card, moved elsewhere."""
    objective = make_objective(model="llama", space=BATCH, defaults={"learning_rate": 1e-2})
    study = optuna.create_study()
    study.optimize(objective, n_trials=1)
    result = promote(study, objective, folder="final", n_seeds=1, rank=lambda _: [0])
    moved = Path(shutil.move(result.adapter, "../promoted")).resolve()
    card = (moved / "README.md").read_text()
    assert f"base_model: {moved.parent / 'here' / 'llama'}" in card
    assert 0 < card.index("## How to load it") < card.index("## Results")
    assert "message" in (moved / "chat_template.jinja").read_text()
    return moved


@pytest.mark.slow
def test_the_embedded_model_is_named_by_what_transformers_can_load() -> None:
    loaded = load_base("embedded", device="cpu", dtype=torch.float32, max_length=64)
    base = as_base(loaded)
    assert (Path(base.location) / "model.safetensors").is_file()
    assert base.gguf is not None and base.gguf.endswith(".gguf")
    text = how_to_load(base)
    assert base.gguf in text and "clear-cache" in text


def test_what_a_card_says_of_the_base_model() -> None:
    hub = how_to_load(Base("org/model", "org/model", None))
    assert "base_model_name_or_path" not in hub
    assert "change it where the base model lies" in how_to_load(Base("/a/model", "model", None))
    quantized = Base("org/model", "org/model", None, quantization="4bit")
    assert "had 4bit weights in training" in how_to_load(quantized)
