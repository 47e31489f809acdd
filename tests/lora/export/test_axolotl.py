"""`train.yml`, read by Axolotl's own schema where it is installed (0.19.0 by hand)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import transformers
import yaml

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import tokens
from optuna_llmbo.lora.data import load_records
from optuna_llmbo.lora.export import files
from tests.lora.conftest import rows
from tests.lora.export.samples import facts
from tests.lora.export.samples import make_data
from tests.lora.export.samples import REFUSED_BY_ALL_BUT_PEFT
from tests.lora.export.samples import written
from tests.tiny import make_tiny_llm


# Of `AxolotlInputConfig` in axolotl 0.19.0, those that an export may use; it ignores other keys.
KEYS = set(
    "adapter base_model bf16 datasets eval_batch_size evals_per_epoch fp16 "
    "gradient_accumulation_steps learning_rate lora_alpha lora_dropout lora_r lora_target_linear "
    "lora_target_modules loraplus_lr_ratio lr_scheduler max_grad_norm micro_batch_size num_epochs "
    "optimizer output_dir peft_init_lora_weights peft_use_dora peft_use_rslora sample_packing "
    "seed sequence_len test_datasets train_on_inputs val_set_size warmup_steps "
    "weight_decay".split()
)
DATASET_KEYS = {"path", "ds_type", "split", "type"}

VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "lora": ({}, {"peft_init_lora_weights": True, "lora_target_linear": True}),
    "rslora": ({"variant": "rslora"}, {"peft_use_rslora": True}),
    "dora": ({"variant": "dora", "weight_decay": 0.0}, {"peft_use_dora": True}),
    "pissa": ({"variant": "pissa"}, {"peft_init_lora_weights": "pissa_niter_4"}),
    "olora": ({"variant": "olora"}, {"peft_init_lora_weights": "olora"}),
    "init": ({"init": "orthogonal"}, {"peft_init_lora_weights": "orthogonal"}),
    "lora+": (
        {"variant": "lora+", "lr_ratio": 16.0, "weight_decay": 0.0},
        {"loraplus_lr_ratio": 16.0, "weight_decay": 0.0},
    ),
    "layers": (
        {"target_modules": ("q_proj",)},
        {"lora_target_modules": ["q_proj"], "lora_target_linear": None},
    ),
    "8 bit": ({"optimizer": "adamw-8bit"}, {"optimizer": "adamw_bnb_8bit"}),
    "adafactor": ({"optimizer": "adafactor"}, {"optimizer": "adafactor"}),
    "constant": ({"schedule": "constant"}, {"lr_scheduler": "constant_with_warmup"}),
    "float32": ({"dtype": "float32"}, {"bf16": False, "fp16": False}),
    "no warm-up": ({"warmup_ratio": 0.0}, {"warmup_steps": 0}),
    "validation": ({"validation": "more.jsonl"}, {"evals_per_epoch": 1, "eval_batch_size": 8}),
}


def values(folder: Path, **changes: Any) -> dict[str, Any]:
    read = yaml.safe_load((written(folder, "axolotl", **changes) / "train.yml").read_text())
    assert isinstance(read, dict)
    return read


@pytest.mark.parametrize(("changes", "expected"), VARIANTS.values(), ids=VARIANTS.keys())
def test_keys_and_values(
    changes: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    read = values(tmp_path, **changes)
    assert set(read) <= KEYS
    for dataset in [*read["datasets"], *read.get("test_datasets", [])]:
        assert set(dataset) == DATASET_KEYS
    assert {name: read.get(name) for name in expected} == expected


@pytest.mark.parametrize(("changes", "expected"), VARIANTS.values(), ids=VARIANTS.keys())
def test_its_schema(changes: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    schema = pytest.importorskip("axolotl.utils.schemas.config", exc_type=ImportError)
    kind = schema.AxolotlInputConfig
    assert KEYS <= set(kind.model_fields)
    config = kind(**values(tmp_path, seed=7, max_length=256, **changes))
    assert {name: getattr(config, name) for name in expected} == expected
    common = {
        "base_model": "org/model",
        "adapter": "lora",
        "lora_r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "learning_rate": 1e-5,
        "micro_batch_size": 6,
        "gradient_accumulation_steps": 2,
        "num_epochs": 2,
        "sequence_len": 256,
        "seed": 7,
        "max_grad_norm": 1.0,
        "train_on_inputs": False,
        "sample_packing": False,
    }
    assert {name: getattr(config, name) for name in common} == common
    (dataset,) = config.datasets
    assert (dataset.path, dataset.type) == ("data/train.jsonl", "input_output")


@pytest.mark.parametrize("chat", [False, True])
def test_its_strategy_makes_the_tokens_of_a_trial(chat: bool, tmp_path: Path) -> None:
    strategy = pytest.importorskip("axolotl.prompt_strategies.input_output", exc_type=ImportError)
    source, folder = tmp_path / "source.jsonl", make_tiny_llm(tmp_path / "llm", chat=chat)
    datasets.Dataset.from_list(rows(8)).to_json(source)
    read = values(tmp_path, model=str(folder), train=str(source))
    make_data(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs = strategy.RawInputOutputStrategy(
        strategy.RawInputOutputPrompter(), tokenizer, read["train_on_inputs"], 512
    )
    lines = (tmp_path / read["datasets"][0]["path"]).read_text().splitlines()
    made = [theirs.tokenize_prompt(json.loads(line)) for line in lines]
    expected = tokens.encode(load_records(source), tokenizer, 512)
    assert [row["input_ids"] for row in made] == [list(e.ids) for e in expected]
    assert [row["labels"] for row in made] == [
        [tokens.IGNORED] * e.n_prompt + list(e.ids[e.n_prompt :]) for e in expected
    ]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "alpha": ({"lora_alpha": 20.4}, "lora_alpha=20.4: Axolotl takes whole numbers"),
    "bias": ({"bias": "all"}, "bias='all': Axolotl"),
    "decay": ({"lr_ratio": 4.0}, "weight_decay=0.01 with lr_ratio=4: Axolotl"),
    **REFUSED_BY_ALL_BUT_PEFT,
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        files(facts(**changes), "axolotl")
