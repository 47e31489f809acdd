"""The recipes of the page: values go to the right keys, and what such tools write is read.

The tools that are not installed are known by their documentation only: the samples in
command_samples are written by hand in their formats.
"""

from __future__ import annotations

from collections.abc import Iterator
import json
import os
from pathlib import Path
import re
import shlex
import shutil
import subprocess
import sys
from typing import Any

import optuna
import pytest
from typer.testing import CliRunner
import yaml

from examples.command import data
from optuna_llmbo import cli
from optuna_llmbo import CommandObjective
from optuna_llmbo.command.metrics import Metrics
from optuna_llmbo.command.metrics import Report
from optuna_llmbo.command.plan import read_pairs
from tests.docs_blocks import blocks


ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "command-recipes.md"
RECIPES = ROOT / "examples" / "command"
SAMPLES = Path(__file__).parent / "command_samples"
TOOLS = ("axolotl", "hf_script", "llamafactory", "torchtune", "trl", "unsloth")


def searches() -> Iterator[tuple[str, list[str]]]:
    """The tool and the words of each search on the page that uses a recipe's files."""
    for block in blocks(PAGE):
        for command in block.commands if block.language == "console" else ():
            words = shlex.split(command, comments=True)
            found = re.search(r"examples/command/(\w+)/space\.toml", command)
            if words[:2] == ["optuna-llmbo", "search"] and found:
                yield found[1], words[2:]


def recipe(tool: str, folder: Path) -> CommandObjective:
    """The objective of a recipe, made of its command line on the page."""
    (words,) = [words for name, words in searches() if name == tool]
    options: dict[str, list[str]] = {}
    for name, value in zip(words[::2], words[1::2], strict=True):
        options.setdefault(name, []).append(value)

    def file(name: str) -> Path:
        (text,) = options[name]
        return ROOT / text.removeprefix("../")

    return CommandObjective(
        options["--command"][0],
        file("--space"),
        options["--metric"][0],
        config=file("--config"),
        assign=read_pairs(options.get("--set", []), "--set"),
        metric_regex=options.get("--metric-regex", [None])[0],
        metric_files=options.get("--metric-file", []),
        folder=folder,
    )


def trial_config(tool: str, folder: Path, **params: Any) -> tuple[list[str], dict[str, Any]]:
    """The command and the configuration of a trial: the control but for some parameters."""
    objective = recipe(tool, folder)
    assert objective.default_params is not None and objective.options.plan.config is not None
    call = objective.options.plan.fill(
        objective.default_params | params,
        {"config": "copy.yaml", "folder": str(folder), "trial": 0, "gpus": ""},
    )
    text = objective.options.plan.config.with_values(call.values)
    return list(call.words), yaml.safe_load(text)


def test_every_recipe_is_on_the_page() -> None:
    assert sorted(name for name, _ in searches()) == sorted(TOOLS)
    assert {path.name for path in RECIPES.iterdir() if path.is_dir()} - {"__pycache__"} == set(
        TOOLS
    )


@pytest.mark.parametrize("tool", TOOLS)
def test_the_control_is_the_file_as_it_is(tool: str, tmp_path: Path) -> None:
    objective = recipe(tool, tmp_path)
    config = objective.options.plan.config
    assert objective.default_params is not None and config is not None
    _, written = trial_config(tool, tmp_path)
    after, before = dict(leaves(written)), dict(leaves(yaml.safe_load(config.path.read_text())))
    (changed,) = {key for key in before if after[key] != before[key]}
    own = "trial-0" if tool == "unsloth" else f"{tmp_path}/out"
    assert changed.endswith("output_dir") and after[changed] == own
    assert list(after) == list(before)


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


WHERE: dict[str, dict[str, Any]] = {
    "llamafactory": {
        "learning_rate": 3e-3, "gradient_accumulation_steps": 2, "lora_rank": 5, "lora_alpha": 20,
    },
    "trl": {"learning_rate": 3e-3, "lora_r": 5, "lora_alpha": 20},
    "hf_script": {"learning_rate": 3e-3, "lora_r": 5, "lora_alpha": 20},
    "axolotl": {
        "learning_rate": 2e-3, "lora_r": 5, "lora_alpha": 20, "gradient_accumulation_steps": 16,
    },
    "unsloth": {
        "training.learning_rate": 2e-3, "lora.lora_r": 5, "lora.lora_alpha": 20,
        "lora.use_rslora": True,
    },
    "torchtune": {
        "optimizer.lr": 2e-3, "model.lora_rank": 5, "model.lora_alpha": 20,
        "lr_scheduler.num_warmup_steps": 7,
    },
}  # fmt: skip
"""What the configuration of a trial is to have, by its key."""
PARAMS: dict[str, dict[str, Any]] = {
    "llamafactory": {"learning_rate": 3e-3, "batch_size": 2, "lora_rank": 5, "alpha_ratio": 4.0},
    "trl": {"learning_rate": 3e-3, "lora_r": 5, "alpha_ratio": 4.0},
    "hf_script": {"learning_rate": 3e-3, "lora_r": 5, "alpha_ratio": 4.0},
    "axolotl": {
        "learning_rate": 2e-3, "lora_r": 5, "alpha_ratio": 4.0, "gradient_accumulation_steps": 16,
    },
    "unsloth": {"learning_rate": 2e-3, "rank": 5, "alpha_ratio": 4.0, "rslora": True},
    "torchtune": {"learning_rate": 2e-3, "rank": 5, "alpha_ratio": 4.0, "num_warmup_steps": 7},
}  # fmt: skip


def at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree


@pytest.mark.parametrize("tool", TOOLS)
def test_values_go_to_the_keys_of_the_tool(tool: str, tmp_path: Path) -> None:
    words, written = trial_config(tool, tmp_path, **PARAMS[tool])
    assert "copy.yaml" in words
    for key, value in WHERE[tool].items():
        assert at(written, key) == value and type(at(written, key)) is type(value), key


def read(tool: str, folder: Path, *, is_final: bool = False) -> tuple[Metrics, list[Report]]:
    """What is read in a trial's folder, as the recipe says."""
    options = recipe(tool, folder).options
    assert options.plan.config is not None
    metrics = Metrics(
        folder,
        folder / "log.txt",
        options.metric,
        pattern=options.pattern,
        files=options.metric_files,
        settings=options.plan.config.leaves(),
    )
    metrics.read(is_final=is_final)
    axis = metrics.axis()
    return metrics, [] if axis is None else metrics.reports(axis)


def test_axolotl_is_read_from_its_output_and_exactly_from_a_checkpoint(tmp_path: Path) -> None:
    shutil.copy(SAMPLES / "axolotl.log", tmp_path / "log.txt")
    metrics, reports = read("axolotl", tmp_path)
    assert metrics.axis() == "percent"
    assert reports == [Report(25, 2.051), Report(50, 1.987)]
    state = tmp_path / "out" / "checkpoint-12" / "trainer_state.json"
    state.parent.mkdir(parents=True)
    shutil.copy(SAMPLES / "axolotl_trainer_state.json", state)
    metrics, reports = read("axolotl", tmp_path)
    assert reports == [Report(25, 2.0512194633483887), Report(50, 1.9873508214950562)]
    assert metrics.value() == 1.9873508214950562
    assert metrics.progress()[0] == 0.5


def test_unsloth_is_read_from_its_output(tmp_path: Path) -> None:
    shutil.copy(SAMPLES / "unsloth.log", tmp_path / "log.txt")
    metrics, _ = read("unsloth", tmp_path)
    reports = metrics.reports("percent")
    assert [report.value for report in reports][:1] == [2.3115]
    assert metrics.not_finite() != metrics.not_finite()  # nan: the trial has diverged


def test_torchtune_is_read_from_its_log(tmp_path: Path) -> None:
    log = tmp_path / "out" / "logs" / "log_1793611423.txt"
    log.parent.mkdir(parents=True)
    shutil.copy(SAMPLES / "torchtune.txt", log)
    metrics, reports = read("torchtune", tmp_path)
    assert metrics.axis() == "step"
    assert reports == [Report(20, 1.9120937585830688), Report(40, 1.8544490337371826)]
    assert metrics.value() == 1.8544490337371826
    assert metrics.value(best="maximize") == 1.9120937585830688


def commands(word: str) -> list[str]:
    """The commands of the page that have a word."""
    return [c for block in blocks(PAGE) for c in block.commands if word in c]


def test_the_best_configuration_of_llamafactory_becomes_the_final_one(tmp_path: Path) -> None:
    (command,) = commands("sed ")
    (trial,) = re.findall(r"runs/trial-\d{4}", command)
    (tmp_path / trial).mkdir(parents=True)
    shutil.copy(RECIPES / "llamafactory" / "train.yaml", tmp_path / trial)
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    before = yaml.safe_load((RECIPES / "llamafactory" / "train.yaml").read_text())
    after = yaml.safe_load((tmp_path / "final.yaml").read_text())
    gone = {"max_samples", "eval_dataset", "eval_strategy", "eval_steps"}
    assert before.keys() - after.keys() == gone
    changed = {key: after[key] for key in after if after[key] != before[key]}
    assert changed == {"dataset": "train,validation", "output_dir": "final"}


LLAMAFACTORY = "LLAMAFACTORY_ENVIRONMENT"
"""An environment variable that names a virtual environment which has LLaMA-Factory."""


@pytest.mark.slow
@pytest.mark.skipif(LLAMAFACTORY not in os.environ, reason=f"{LLAMAFACTORY} names no environment")
def test_llamafactory_is_searched_by_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["data", str(tmp_path)])
    data.main()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (words,) = [words for tool, words in searches() if tool == "llamafactory"]
    words = [word.replace("../examples", str(ROOT / "examples")) for word in words]
    program = f"{os.environ[LLAMAFACTORY]}/bin/llamafactory-cli"
    words[words.index("--command") + 1] = f"{program} train {{config}}"
    words[words.index("--trials") + 1] = "1"
    result = CliRunner().invoke(cli.app, ["search", *words])
    assert result.exit_code == 0, result.output
    (trial,) = optuna.load_study(study_name="search", storage="sqlite:///search.db").trials
    folder = tmp_path / "runs" / "trial-0000" / "out"
    assert trial.value == json.loads((folder / "all_results.json").read_text())["eval_loss"]
    assert list(trial.intermediate_values) == [50, 100]
    assert (folder / "adapter_model.safetensors").exists()


def test_the_data_of_both_kinds_are_the_same_examples(tmp_path: Path) -> None:
    pairs = [(f"def f{i}(): ...", f"Return {i}.") for i in range(sum(data.PARTS.values()) + 3)]
    data.write(tmp_path, pairs)
    seen = []
    for part, n in data.PARTS.items():
        alpaca, chat = (
            [yaml.safe_load(line) for line in (tmp_path / kind / f"{part}.jsonl").open()]
            for kind in ("alpaca", "chat")
        )
        assert len(alpaca) == len(chat) == n
        for one, other in zip(alpaca, chat, strict=True):
            (user,), (assistant,) = other["prompt"], other["completion"]
            assert user["content"] == f"{one['instruction']}\n{one['input']}"
            assert assistant["content"] == one["output"]
            seen.append(one["output"])
    assert len(set(seen)) == len(seen) == sum(data.PARTS.values())
