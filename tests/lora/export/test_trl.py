"""`sft.yaml`, read by TRL's own parser and trained with TRL's own trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import tokens
from optuna_llmbo.lora.data import load_records
from optuna_llmbo.lora.export import files
from optuna_llmbo.lora.export.hf_trainer import OPTIMIZERS
from optuna_llmbo.lora.optimizer import rate_factor
from tests.lora.conftest import rows
from tests.lora.export.samples import facts
from tests.lora.export.samples import make_data
from tests.lora.export.samples import REFUSED_BY_ALL_BUT_PEFT
from tests.lora.export.samples import written
from tests.tiny import make_tiny_llm


trl = pytest.importorskip("trl")


def parsed(folder: Path, **changes: Any) -> tuple[Any, Any, Any]:
    """Script, training and model arguments; an unknown key is an error."""
    written(folder, "trl", **changes)
    kinds = (trl.ScriptArguments, trl.SFTConfig, trl.ModelConfig, trl.DatasetMixtureConfig)
    arguments = ["--config", str(folder / "sft.yaml"), "--use_cpu", "true"]
    script, training, model, _ = trl.TrlParser(kinds).parse_args_and_config(arguments)
    return script, training, model


def test_values(tmp_path: Path) -> None:
    script, training, model = parsed(tmp_path, seed=7, max_length=256, validation="more.jsonl")
    assert (script.dataset_name, script.dataset_test_split) == ("./data", "validation")
    expected = {
        "learning_rate": 1e-5,
        "per_device_train_batch_size": 6,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 2,
        "warmup_steps": 17,
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "bf16": True,
        "seed": 7,
        "max_length": 256,
        "completion_only_loss": True,
        "packing": False,
        "eval_strategy": "epoch",
    }
    assert {name: getattr(training, name) for name in expected} == expected
    config = trl.get_peft_config(model)
    assert (config.r, config.lora_alpha, config.lora_dropout) == (8, 16, 0.05)
    assert (config.target_modules, config.bias) == ("all-linear", "none")
    assert not config.use_rslora and not config.use_dora
    assert (model.model_name_or_path, model.dtype) == ("org/model", "bfloat16")


def test_variants_optimizers_and_schedules(tmp_path: Path) -> None:
    _, _, model = parsed(tmp_path, variant="rslora")
    assert trl.get_peft_config(model).use_rslora
    _, _, model = parsed(tmp_path, variant="dora", weight_decay=0.0)
    assert trl.get_peft_config(model).use_dora
    for name, theirs in OPTIMIZERS.items():
        assert parsed(tmp_path, optimizer=name)[1].optim == theirs
    assert parsed(tmp_path, schedule="constant")[1].lr_scheduler_type == "constant_with_warmup"
    _, training, model = parsed(tmp_path, dtype="float32")
    assert (model.dtype, training.bf16) == ("float32", False)


@pytest.mark.parametrize("modules", [("q_proj",), ("q_proj", "self_attn.o_proj")])
def test_the_named_layers_get_adapters(
    modules: tuple[str, ...], tmp_path: Path, tiny_llm: Path
) -> None:
    import peft

    _, _, arguments = parsed(tmp_path, target_modules=modules)
    loaded = load_model(resolve_source(tiny_llm), device="cpu", dtype=torch.float32).model
    peft.get_peft_model(loaded, trl.get_peft_config(arguments))
    adapted = {name.split(".lora_")[0] for name, _ in loaded.named_parameters() if "lora_" in name}
    assert {name.rpartition(".")[2] for name in adapted} == {m.split(".")[-1] for m in modules}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "alpha": ({"lora_alpha": 20.4}, r"lora_alpha=20.4: TRL takes whole numbers.*--round-alpha"),
    "PiSSA": ({"variant": "pissa"}, "variant='pissa': TRL cannot express it"),
    "OLoRA": ({"variant": "olora"}, "variant='olora': TRL"),
    "LoRA+": ({"variant": "lora+", "lr_ratio": 16.0}, "variant='lora\\+': TRL"),
    "two rates": ({"lr_ratio": 4.0}, "lr_ratio=4.0: TRL"),
    "init": ({"init": "orthogonal"}, "init='orthogonal': TRL"),
    "bias": ({"bias": "all"}, "bias='all': TRL"),
    **REFUSED_BY_ALL_BUT_PEFT,
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        files(facts(**changes), "trl")


@pytest.mark.parametrize("chat", [False, True])
def test_it_trains_on_what_a_trial_trains_on(
    chat: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens, loss positions, steps and rates are the trial's."""
    source, folder = tmp_path / "source.jsonl", make_tiny_llm(tmp_path / "llm", chat=chat)
    datasets.Dataset.from_list(rows(20)).to_json(source)
    place = tmp_path / "export"
    settings = {
        "model": str(folder),
        "train": str(source),
        "validation": str(source),
        "n_examples": 20,
        "batch_size": 8,
        "micro_batch_size": 4,
        "schedule": "linear",
        "warmup_ratio": 0.5,
        "dtype": "float32",
    }
    script, training, model = parsed(place, **settings)
    make_data(place)
    monkeypatch.chdir(place)
    data = datasets.load_dataset(script.dataset_name)
    assert set(data) == {"train", "validation"}
    training.disable_tqdm, training.report_to, training.logging_steps = True, [], 1
    trainer = trl.SFTTrainer(
        model=model.model_name_or_path,
        args=training,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        peft_config=trl.get_peft_config(model),
    )
    loaded = load_model(resolve_source(folder), device="cpu", dtype=torch.float32)
    expected = tokens.encode(load_records(source), loaded.tokenizer, 512)
    seen = trainer.train_dataset
    assert [list(example.ids) for example in expected] == list(seen["input_ids"])
    labels = [
        [tokens.IGNORED] * example.n_prompt + list(example.ids[example.n_prompt :])
        for example in expected
    ]
    assert labels == list(seen["labels"])
    trainer.train()
    made = facts(**settings)
    assert trainer.state.global_step == made.steps == 6
    logged = [line["learning_rate"] for line in trainer.state.log_history if "loss" in line]
    peak = made.recipe.learning_rate
    # one step later: zero at first, and the trial's first rate second
    ours = [0.0] + [peak * rate_factor(made.recipe, step, 6) for step in range(1, 4)]
    assert logged[:4] == pytest.approx(ours)
