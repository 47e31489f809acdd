"""What docs/lora.md says works as it stands there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
import re

from optuna_llmbo.lora import recipe
from optuna_llmbo.lora.hyperparameters import ALIASES
from optuna_llmbo.lora.metrics import registry
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.space.space_file import read_space


GUIDE = (Path(__file__).parents[2] / "docs" / "lora.md").read_text()


def test_the_space_can_be_searched(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", GUIDE, flags=re.DOTALL)
    path = tmp_path / "space.toml"
    path.write_text(text)
    space = read_space(path)
    recipe.check_space(space, 100)
    assert "warmup_ratio" in space and recipe.default_params(space)["variant"] == "lora"


def test_every_hyperparameter_is_in_the_table() -> None:
    table = GUIDE[GUIDE.index("| name | what it is | default |") :].split("\n\n")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", " ".join(rows)))
    assert {field.name for field in dataclasses.fields(LoRARecipe)} <= named <= set(ALIASES)


def test_metrics_that_are_named_exist() -> None:
    table = GUIDE[GUIDE.index("| metric | direction |") :].split("\n\n")[0]
    named = set(re.findall(r'`"(\w+)"`', table))
    assert named <= set(registry.NAMES) and set(registry.NAMES) - named == {"rouge", "rougeLsum"}
