"""LLaMA-Factory as a command: how it is searched, and how it is trained with one configuration."""

from __future__ import annotations

from collections.abc import Mapping
import json
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

import yaml


RECIPE = Path(__file__).parents[2] / "examples" / "command" / "llamafactory"
STUDY = "llamafactory"
HEARTBEAT = 30
"""Seconds, the command's default; a trial whose search was killed is retried after twice that."""
PACKAGES = ("llamafactory", "transformers", "peft", "trl", "datasets", "accelerate", "torch")
_VERSIONS = (
    "import importlib.metadata as m, json, sys;"
    "print(json.dumps({name: m.version(name) for name in sys.argv[1:]}))"
)


class Missing(Exception):
    """LLaMA-Factory is not where it was said to be."""


class Tool:
    """LLaMA-Factory in an environment of its own, working in one folder.

    Args:
        environment: the virtual environment.
        work: the folder that `examples.command.data` makes; all paths are in it.

    Raises:
        Missing: if the environment has no LLaMA-Factory.
    """

    def __init__(self, environment: Path, work: Path) -> None:
        self.program = (environment / "bin" / "llamafactory-cli").absolute()
        self.work = work.absolute()
        self._python = environment.absolute() / "bin" / "python"
        if not self.program.exists():
            raise Missing(
                f"{self.program} is not there: install LLaMA-Factory into an environment of its "
                "own, as docs/command-recipes.md says, and give it as --llamafactory."
            )

    @property
    def runs(self) -> Path:
        """Where the trials' folders are."""
        return self.work / "runs"

    @property
    def storage(self) -> str:
        """The study's database."""
        return f"sqlite:///{self.work}/search.db"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of all that is run: one thread, and nothing is fetched."""
        own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DISABLE_VERSION_CHECK": "1"}
        here = Path(__file__).parents[2]
        return {**os.environ, **own, "PYTHONPATH": str(here)}

    def search(self, n_trials: int) -> list[str]:
        """The command line of the search."""
        return [
            sys.executable, "-c", "from optuna_llmbo.cli import main; main()", "search",
            "--command", f"{self.program} train {{config}}",
            "--config", str(RECIPE / "train.yaml"),
            "--space", str(RECIPE / "space.toml"),
            "--set", "output_dir={folder}/out",
            "--set", "gradient_accumulation_steps=batch_size",
            "--set", "lora_alpha=round(lora_rank * alpha_ratio)",
            "--metric", "eval_loss",
            "--context", "method=lora",
            "--trials", str(n_trials),
            "--heartbeat", str(HEARTBEAT),
            "--folder", str(self.runs),
            "--storage", self.storage,
            "--study", STUDY,
        ]  # fmt: skip

    def train(self, name: str, settings: Mapping[str, Any]) -> dict[str, float]:
        """Train once, unless that is done.

        Args:
            name: of the folder.
            settings: the tool's configuration, but for its output folder.

        Returns:
            All results that the tool writes at the end.
        """
        folder = self.work / "final" / name
        results = folder / "all_results.json"
        if not results.exists():
            folder.mkdir(parents=True, exist_ok=True)
            config = folder / "train.yaml"
            config.write_text(yaml.safe_dump({**settings, "output_dir": str(folder)}))
            with (folder / "log.txt").open("w") as log:
                subprocess.run(
                    [self.program, "train", config],
                    cwd=self.work,
                    env=self.environment,
                    stdout=log,
                    stderr=log,
                    check=True,
                )
        found: dict[str, float] = json.loads(results.read_text())
        return found

    def versions(self) -> dict[str, str]:
        """The versions in the tool's environment."""
        told = subprocess.run(
            [self._python, "-c", _VERSIONS, *PACKAGES], capture_output=True, text=True, check=True
        )
        found: dict[str, str] = json.loads(told.stdout)
        return found

    def running(self) -> list[int]:
        """Processes that work in the trials' folders, by their command lines."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes()
            except OSError:  # it has just ended
                continue
            if str(self.runs).encode() in words:
                found.append(int(path.parent.name))
        return found


def read_settings(path: Path) -> dict[str, Any]:
    """Read a YAML file."""
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found
