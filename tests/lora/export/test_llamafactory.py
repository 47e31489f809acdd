"""`train.yaml`, read by LLaMA-Factory's own parser where it is installed (0.9.5 by hand)."""

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
from optuna_llmbo.lora.export.hf_trainer import OPTIMIZERS
from tests.lora.conftest import rows
from tests.lora.export.samples import facts
from tests.lora.export.samples import make_data
from tests.lora.export.samples import REFUSED_BY_ALL_BUT_PEFT
from tests.lora.export.samples import written
from tests.tiny import make_tiny_llm


def values(folder: Path, **changes: Any) -> dict[str, Any]:
    read = yaml.safe_load((written(folder, "llamafactory", **changes) / "train.yaml").read_text())
    assert isinstance(read, dict)
    return read


@pytest.fixture
def llamafactory(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")  # it asks for older libraries
    monkeypatch.setenv("LLAMAFACTORY_VERBOSITY", "WARNING")
    return pytest.importorskip("llamafactory.hparams", exc_type=ImportError)


def test_its_parser(llamafactory: Any, tmp_path: Path) -> None:
    """The file is given as a dictionary, as its command line does; unknown keys are errors."""
    read = values(tmp_path, seed=7, max_length=256, validation="more.jsonl")
    model, data, training, finetuning, _ = llamafactory.get_train_args(read | {"use_cpu": True})
    assert model.model_name_or_path == "org/model"
    assert (data.dataset, data.eval_dataset) == (["train"], ["validation"])
    assert (data.cutoff_len, data.template, data.train_on_prompt) == (256, "empty", False)
    assert (finetuning.stage, finetuning.finetuning_type) == ("sft", "lora")
    assert (finetuning.lora_rank, finetuning.lora_alpha) == (8, 16)
    assert (finetuning.lora_dropout, finetuning.lora_target) == (0.05, ["all"])
    assert not (finetuning.use_rslora or finetuning.use_dora or finetuning.pissa_init)
    assert finetuning.loraplus_lr_ratio is None
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
        "eval_strategy": "epoch",
    }
    assert {name: getattr(training, name) for name in expected} == expected


VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rslora": ({"variant": "rslora"}, {"use_rslora": True}),
    "dora": ({"variant": "dora", "weight_decay": 0.0}, {"use_dora": True}),
    "pissa": ({"variant": "pissa"}, {"pissa_init": True, "pissa_iter": 4}),
    "lora+": ({"variant": "lora+", "lr_ratio": 16.0}, {"loraplus_lr_ratio": 16.0}),
    "layers": (
        {"target_modules": ("q_proj", "self_attn.o_proj")},
        {"lora_target": ["q_proj", "self_attn.o_proj"]},
    ),
}


@pytest.mark.parametrize(("changes", "expected"), VARIANTS.values(), ids=VARIANTS.keys())
def test_its_parser_knows_the_variants(
    changes: dict[str, Any], expected: dict[str, Any], llamafactory: Any, tmp_path: Path
) -> None:
    read = values(tmp_path, **changes)
    finetuning = llamafactory.get_train_args(read | {"use_cpu": True})[3]
    assert {name: getattr(finetuning, name) for name in expected} == expected


@pytest.mark.parametrize("chat", [False, True])
def test_its_template_makes_the_tokens_of_a_trial(
    chat: bool, llamafactory: Any, tmp_path: Path
) -> None:
    parser = pytest.importorskip("llamafactory.data.parser", exc_type=ImportError)
    template = pytest.importorskip("llamafactory.data.template", exc_type=ImportError)
    source, folder = tmp_path / "source.jsonl", make_tiny_llm(tmp_path / "llm", chat=chat)
    datasets.Dataset.from_list(rows(8)).to_json(source)
    read = values(tmp_path, model=str(folder), train=str(source))
    make_data(tmp_path)
    data_args = llamafactory.get_train_args(read | {"use_cpu": True})[1]
    (about,) = parser.get_dataset_list(data_args.dataset, str(tmp_path / read["dataset_dir"]))
    assert (about.load_from, about.formatting) == ("file", "alpaca")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs = template.get_template_and_fix_tokenizer(tokenizer, data_args)
    made = []
    for line in (tmp_path / "data" / about.dataset_name).read_text().splitlines():
        row = json.loads(line)
        messages = [
            {"role": "user", "content": row[about.prompt]},
            {"role": "assistant", "content": row[about.response]},
        ]
        made.append(theirs.encode_oneturn(tokenizer, messages))
    ours = transformers.AutoTokenizer.from_pretrained(folder)  # theirs has got a template now
    expected = tokens.encode(load_records(source), ours, 512)
    assert made == [(e.ids[: e.n_prompt].tolist(), e.ids[e.n_prompt :].tolist()) for e in expected]


def test_values_without_its_parser(tmp_path: Path) -> None:
    """What the parser's tests say in short, where it is not installed."""
    read = values(tmp_path, variant="pissa", lr_ratio=4.0, target_modules=("q_proj", "v_proj"))
    assert read["learning_rate"] == 1e-5
    assert read["per_device_train_batch_size"] * read["gradient_accumulation_steps"] == 12
    assert (read["pissa_init"], read["pissa_iter"]) == (True, 4)
    assert (read["loraplus_lr_ratio"], read["lora_target"]) == (4.0, "q_proj,v_proj")
    info = json.loads((tmp_path / read["dataset_dir"] / "dataset_info.json").read_text())
    assert list(info) == [read["dataset"]]
    for name, theirs in OPTIMIZERS.items():
        assert values(tmp_path, optimizer=name)["optim"] == theirs


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "alpha": ({"lora_alpha": 20.4}, "lora_alpha=20.4: LLaMA-Factory takes whole numbers"),
    "OLoRA": ({"variant": "olora"}, "variant='olora': LLaMA-Factory"),
    "init": ({"init": "gaussian"}, "init='gaussian': LLaMA-Factory"),
    "bias": ({"bias": "lora_only"}, "bias='lora_only': LLaMA-Factory"),
    "dtype": ({"dtype": "float32"}, "dtype='float32': LLaMA-Factory"),
    **REFUSED_BY_ALL_BUT_PEFT,
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        files(facts(**changes), "llamafactory")
