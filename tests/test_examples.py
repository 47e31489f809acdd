"""The examples run as they are, with a small budget and a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
import subprocess
import sys

import pytest


ROOT = Path(__file__).parent.parent


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=400)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_quickstart(tiny_llm: Path) -> None:
    assert "learning_rate" in run("examples/quickstart.py", "--trials", 7, "--llm", tiny_llm)


@pytest.fixture
def lora_arguments(tiny_llm: Path, tmp_path: Path) -> list[object]:
    rows = [{"prompt": f"count on from {i}", "response": f"{i + 1}"} for i in range(60)]
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["--model", tiny_llm, "--llm", tiny_llm, "--train", data, "--validation", 8]


def test_lora(lora_arguments: list[object]) -> None:
    printed = run("examples/lora.py", *lora_arguments, "--trials", 6, "--proxy", 0.5)
    assert "base model" in printed and "best" in printed


@pytest.mark.slow
def test_lora_on_the_embedded_model() -> None:
    printed = run("examples/lora.py", "--trials", 1, "--proxy", 0.008, "--validation", 8)
    base, default = printed.splitlines()[:2]
    assert float(default.split()[1]) < float(base.split()[2])
