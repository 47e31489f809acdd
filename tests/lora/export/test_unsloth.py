"""`train.py`: what its calls are given, against what Unsloth and TRL take (2026.10.9 by hand)."""

from __future__ import annotations

import ast
import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.export import files
from tests.lora.export.samples import facts
from tests.lora.export.samples import REFUSED_BY_ALL_BUT_PEFT


# Of unsloth 2026.10.9, those that an export uses. `use_dora` is handed on to peft.
LOAD = {"model_name", "max_seq_length", "dtype", "load_in_4bit", "random_state"}
ADAPT = set(
    "r lora_alpha lora_dropout target_modules bias use_rslora init_lora_weights "
    "random_state".split()
)


def calls(**changes: Any) -> dict[str, dict[str, Any]]:
    """Keyword arguments by the called name; what is no literal as its text."""
    tree = ast.parse(files(facts(**changes), "unsloth")["train.py"])
    compile(tree, "train.py", "exec")
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            arguments = {str(k.arg): literal(k.value) for k in node.keywords}
            found[ast.unparse(node.func)] = arguments
    return found


def literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def test_calls() -> None:
    made = calls(lora_alpha=20.4, seed=7, max_length=256, validation="more.jsonl")
    load = made["FastLanguageModel.from_pretrained"]
    assert load == {
        "model_name": "org/model",
        "max_seq_length": 256,
        "dtype": "torch.bfloat16",
        "load_in_4bit": False,
        "random_state": 7,
    }
    assert made["FastLanguageModel.get_peft_model"] == {
        "r": 8,
        "lora_alpha": 20.4,
        "lora_dropout": 0.05,
        "target_modules": "all-linear",
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "random_state": 7,
    }
    trainer = made["SFTTrainer"]
    assert trainer["train_dataset"] == "data['train']"
    assert trainer["eval_dataset"] == "data['validation']"
    assert made["datasets.load_dataset"]["data_files"] == {
        "train": "data/train.jsonl",
        "validation": "data/validation.jsonl",
    }
    assert calls()["SFTTrainer"]["eval_dataset"] is None


def test_trl_takes_the_training_arguments(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    made = calls(optimizer="adafactor", validation="more.jsonl")["SFTConfig"]
    config = trl.SFTConfig(**made | {"output_dir": str(tmp_path)}, use_cpu=True)
    assert (config.learning_rate, config.optim, config.warmup_steps) == (1e-5, "adafactor", 17)
    assert config.per_device_train_batch_size * config.gradient_accumulation_steps == 12
    assert config.completion_only_loss and config.eval_strategy == "epoch"


VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rslora": ({"variant": "rslora"}, {"use_rslora": True}),
    "dora": ({"variant": "dora", "weight_decay": 0.0}, {"use_dora": True}),
    "pissa": ({"variant": "pissa"}, {"init_lora_weights": "pissa_niter_4"}),
    "olora": ({"variant": "olora"}, {"init_lora_weights": "olora"}),
    "init": ({"init": "gaussian"}, {"init_lora_weights": "gaussian"}),
    "bias": ({"bias": "lora_only"}, {"bias": "lora_only"}),
    "layers": ({"target_modules": ("q_proj",)}, {"target_modules": ["q_proj"]}),
}


@pytest.mark.parametrize(("changes", "expected"), VARIANTS.values(), ids=VARIANTS.keys())
def test_variants(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    adapt = calls(**changes)["FastLanguageModel.get_peft_model"]
    assert {name: adapt[name] for name in expected} == expected


def test_names_of_the_parameters() -> None:
    made = calls()
    assert set(made["FastLanguageModel.from_pretrained"]) == LOAD
    assert set(made["FastLanguageModel.get_peft_model"]) == ADAPT | {"use_dora"}


def test_its_source_has_these_parameters() -> None:
    """Read and not imported, for importing it needs a GPU."""
    try:
        package = importlib.metadata.distribution("unsloth")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("unsloth is not installed")
    for file, function, names in (
        ("loader.py", "from_pretrained", LOAD),
        ("llama.py", "get_peft_model", ADAPT),
    ):
        tree = ast.parse(Path(str(package.locate_file(f"unsloth/models/{file}"))).read_text())
        found = next(
            n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function
        )
        assert names <= {argument.arg for argument in found.args.args + found.args.kwonlyargs}
        assert found.args.kwarg is not None  # for use_dora


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "two rates": ({"lr_ratio": 4.0}, "lr_ratio=4.0: Unsloth cannot express it"),
    **REFUSED_BY_ALL_BUT_PEFT,
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        files(facts(**changes), "unsloth")
