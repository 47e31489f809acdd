"""A training program to search, and its files."""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
import sys
from typing import Any

from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from optuna_llmbo.command import CommandObjective


TRAINER = str(Path(__file__).with_name("fake_trainer.py"))
COMMAND = [sys.executable, "-S", TRAINER, "{config}"]
SPACE = {
    "learning_rate": FloatDistribution(1e-5, 1e-1, log=True),
    "lora_rank": IntDistribution(4, 64, log=True),
}
SETTINGS: dict[str, Any] = {
    "training": {"learning_rate": 1e-4},
    "lora_rank": 8,
    "output_dir": "output",
    "max_steps": 4,
}
ASSIGN = {"training.learning_rate": "learning_rate", "output_dir": "{folder}/output"}

Make = Callable[..., CommandObjective]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes an objective of the training program; settings by name, arguments as `more`."""

    def make(more: dict[str, Any] | None = None, **settings: Any) -> CommandObjective:
        file = tmp_path / "train.json"
        file.write_text(json.dumps(SETTINGS | settings))
        given: dict[str, Any] = {
            "config": file,
            "assign": ASSIGN,
            "folder": tmp_path / "runs",
            "grace": 0.2,
        }
        return CommandObjective(COMMAND, SPACE, "eval_loss", **(given | (more or {})))

    return make
