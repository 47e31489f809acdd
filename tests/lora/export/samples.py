"""Facts to export, and the recipes that a tool is to refuse."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
import runpy
from typing import Any

from optuna_llmbo.lora.export import Facts
from optuna_llmbo.lora.export import write
from optuna_llmbo.lora.recipe import LoRARecipe


RECIPE = LoRARecipe(
    rank=8,
    lora_alpha=16.0,
    lora_dropout=0.05,
    batch_size=12,
    learning_rate=1e-5,  # Python writes 1e-05, which YAML 1.1 reads as a text
    warmup_ratio=0.1,
    schedule="cosine",
    weight_decay=0.01,
    epochs=2,
)


def facts(**changes: Any) -> Facts:
    """Facts of a small training; a field of the recipe or of the facts may differ.

    `target_modules` is that of the facts.
    """
    fields = {field.name for field in dataclasses.fields(LoRARecipe)} - {"target_modules"}
    own = {name: value for name, value in changes.items() if name not in fields}
    recipe = {name: value for name, value in changes.items() if name in fields}
    settings: dict[str, Any] = {
        "model": "org/model",
        "recipe": dataclasses.replace(RECIPE, **recipe),
        "target_modules": "all-linear",
        "train": "train.jsonl",
        "n_examples": 1000,
    }
    return Facts(**settings | own)


def written(folder: Path, to: str, **changes: Any) -> Path:
    """The folder, with the files of a tool."""
    write(facts(**changes), to, folder, overwrite=True)
    return folder


def make_data(folder: Path) -> None:
    """Run `make_data.py` as a user does, in its folder, but in this process: it starts at once."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        runpy.run_path("make_data.py", run_name="__main__")
    finally:
        os.chdir(before)


REFUSED_BY_ALL_BUT_PEFT: dict[str, tuple[dict[str, Any], str]] = {
    "DoRA's magnitude": ({"variant": "dora"}, "weight_decay=0.01 with variant='dora'"),
    "data of our own": ({"train": "stdlib-docstrings"}, "train='stdlib-docstrings'"),
}
"""Changes and the beginning of the message."""
