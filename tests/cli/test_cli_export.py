"""`optuna-llmbo export` after `optuna-llmbo tune`."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import peft
import pytest
from typer.testing import CliRunner
from typer.testing import Result
import yaml

from optuna_llmbo import cli
from optuna_llmbo.cli.export import Dtype
from optuna_llmbo.cli.export import Tool
from optuna_llmbo.cli.own_files import OWN
from optuna_llmbo.lora.export import TOOLS
from optuna_llmbo.lora.export.facts import DTYPES


def run(*arguments: object) -> Result:
    settings = {"COLUMNS": "200"}
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], env=settings)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, tiny_llm: Path) -> Path:
    """A folder with a study of two trials and its data."""
    folder = tmp_path_factory.mktemp("tuned")
    pairs = [{"prompt": f"count on from {i}", "response": f"{i + 1}"} for i in range(60)]
    (folder / "train.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    options = {
        "--model": tiny_llm,
        "--train": folder / "train.jsonl",
        "--proxy": 0.5,
        "--reports": 1,
        "--trials": 2,
        "--sampler": "random",
        "--device": "cpu",
        "--storage": storage(folder),
    }
    result = run("tune", *(part for option in options.items() for part in option))
    assert result.exit_code == 0, result.output
    return folder


def storage(folder: Path) -> str:
    return f"sqlite:///{folder}/study.db"


def export(tuned: Path, *arguments: object) -> Result:
    return run("export", "--storage", storage(tuned), *arguments)


def test_the_best_trial_to_peft(tuned: Path, tmp_path: Path) -> None:
    result = export(tuned, "--to", "peft", "--out", tmp_path / "new")
    assert result.exit_code == 0, result.output
    best = optuna.load_study(study_name="lora", storage=storage(tuned)).best_trial
    config = peft.LoraConfig.from_pretrained(tmp_path / "new")
    assert config.r == best.params["rank"]
    assert config.lora_alpha == pytest.approx(best.params["alpha_ratio"] * config.r)
    assert f"Trial {best.number} of the study 'lora'" in result.output
    assert f"Wrote {tmp_path}/new/adapter_config.json" in result.output
    assert "How to train it (learning rate, batch, schedule) is no part of it" in result.output


def test_a_trial_to_trl(tuned: Path, tmp_path: Path) -> None:
    """Trial 0 has the default configuration, whose alpha is whole."""
    options: dict[str, object] = {
        "--trial": 0,
        "--model": "org/model",
        "--train": tuned / "train.jsonl",
        "--epochs": 3,
        "--examples": 600,
        "--micro-batch-size": 3,
        "--dtype": "bfloat16",
    }
    flat = [part for option in options.items() for part in option]
    result = export(tuned, "--to", "trl", "--out", tmp_path, *flat)
    assert result.exit_code == 0, result.output
    read = yaml.safe_load((tmp_path / "sft.yaml").read_text())
    expected = {
        "model_name_or_path": "org/model",
        "lora_r": 16,
        "lora_alpha": 32,
        "learning_rate": 2e-4,
        "num_train_epochs": 3,
        "dtype": "bfloat16",
    }
    assert {name: read[name] for name in expected} == expected
    batch = optuna.load_study(study_name="lora", storage=storage(tuned)).trials[0].params
    made = read["per_device_train_batch_size"] * read["gradient_accumulation_steps"]
    assert made == batch["batch_size"] and read["per_device_train_batch_size"] <= 3
    assert "The trial made 1 passes over its data, this makes 3." in result.output


def test_alpha_that_is_not_whole(tuned: Path, tmp_path: Path) -> None:
    """Trial 1 is drawn at random from a continuous ratio."""
    refused = export(tuned, "--to", "axolotl", "--trial", 1, "--out", tmp_path / "new")
    assert refused.exit_code == 2
    assert "Axolotl takes whole numbers only. Round it with --round-alpha" in refused.stderr
    assert not (tmp_path / "new").exists()
    rounded = export(
        tuned, "--to", "axolotl", "--trial", 1, "--round-alpha", "--out", tmp_path / "new"
    )
    assert rounded.exit_code == 0, rounded.output
    text = (tmp_path / "new" / "train.yml").read_text()
    assert isinstance(yaml.safe_load(text)["lora_alpha"], int)
    assert "has been rounded" in text and "has been rounded" in rounded.output


def test_bad_input_exits_with_2(tuned: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (("--trial", 9), "has no complete trial 9; complete are 0, 1"),
        (("--study", "other"), "there is no study 'other'"),
        (("--storage", "nonsense://x"), "cannot open the storage 'nonsense://x'"),
        (("--model", "a.gguf"), "not quantized"),
        (("--examples", 0), "n_examples=0"),
    ):
        result = export(tuned, "--to", "peft", "--out", tmp_path / "new", *arguments)
        assert result.exit_code == 2, arguments
        assert message in result.stderr
    assert run("export", "--to", "torchtune", "--out", tmp_path / "new").exit_code == 2
    assert not (tmp_path / "new").exists()


def test_files_that_are_there(tuned: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("mine")
    result = export(tuned, "--to", "peft", "--out", tmp_path)
    assert result.exit_code == 2 and "is not empty" in result.stderr
    assert (tmp_path / "adapter_config.json").read_text() == "mine"
    assert export(tuned, "--to", "peft", "--out", tmp_path, "--overwrite").exit_code == 0
    assert (tmp_path / "adapter_config.json").read_text() != "mine"


def test_the_choices_are_those_of_the_exports() -> None:
    assert tuple(tool.value for tool in Tool) == (*TOOLS, OWN)
    assert tuple(dtype.value for dtype in Dtype) == DTYPES
