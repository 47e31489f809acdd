"""The OptunaHub package loads as the registry would load it, and its README is complete."""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys
from types import ModuleType

import optuna
import optunahub
import pytest
import yaml

import optuna_llmbo


ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "optunahub" / "samplers" / "llmbo"


@pytest.fixture
def module() -> ModuleType:
    return optunahub.load_local_module(
        package="samplers/llmbo", registry_root=str(ROOT / "optunahub")
    )


def test_sampler_of_the_package(module: ModuleType, tiny_llm: Path) -> None:
    assert module.__all__ == ["LLMBOSampler"]
    assert module.LLMBOSampler is optuna_llmbo.LLMBOSampler
    sampler = module.LLMBOSampler(llm=tiny_llm, n_startup_trials=2, n_candidates=8, seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", -5, 5) ** 2, n_trials=4)
    assert len({trial.params["x"] for trial in study.trials}) == 4


def test_front_matter() -> None:
    _, front, body = (PACKAGE / "README.md").read_text().split("---\n", 2)
    fields = yaml.safe_load(front)
    assert set(fields) == {"author", "title", "description", "tags", "optuna_versions", "license"}
    assert all(fields.values())
    assert "sampler" in fields["tags"]
    assert fields["license"] == "MIT License"
    sections = [line.removeprefix("## ") for line in body.splitlines() if line.startswith("## ")]
    assert sections == ["Abstract", "APIs", "Installation", "Example", "Others"]


def test_files() -> None:
    assert (PACKAGE / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert (PACKAGE / "requirements.txt").read_text().split() == ["optuna-llmbo"]


@pytest.mark.long
def test_example(tiny_llm: Path) -> None:
    """From the repository's root, where a folder has the name of the installed package."""
    run = f"import runpy; runpy.run_path({str(PACKAGE / 'example.py')!r}, run_name='__main__')"
    command = [sys.executable, "-c", run]  # which puts the working directory on the path
    environment = {**os.environ, "OPTUNA_LLMBO_LLM": str(tiny_llm)}
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=400
    )
    assert result.returncode == 0, result.stderr
    assert "learning_rate" in result.stdout
