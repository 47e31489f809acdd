"""Values change in a YAML text, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from optuna_llmbo.trainer.yaml_text import with_values


TEXT = """\
# what we always use
model_name_or_path: org/model   # the small one

lora_target_modules:
  - q_proj
  - v_proj

learning_rate: 2.0e-4  # from the paper
"lora_r": 16
datasets: [{path: a, split: train}]
packing: true"""


def test_comments_and_order_stay() -> None:
    made = with_values(TEXT, {"lora_r": 8, "beta": 0.3, "lora_target_modules": ["k_proj"],
        "learning_rate": 1e-5})  # fmt: skip
    assert (
        made
        == """\
# what we always use
model_name_or_path: org/model   # the small one

lora_target_modules: [k_proj]

learning_rate: 1.0e-05  # from the paper
"lora_r": 8
datasets: [{path: a, split: train}]
packing: true
beta: 0.3
"""
    )
    assert with_values(TEXT, {}) == TEXT


@pytest.mark.parametrize(
    "value", [1e-7, 12, True, None, "a: b # c", "", "yes", "é", [1, "x"], {"a": [1, {"b": None}]},
        r"(?:.*\.)?q_proj", "two\nlines", "x" * 300]
)  # fmt: skip
@pytest.mark.parametrize("name", ["learning_rate", "lora_target_modules", "packing", "new"])
def test_any_value_is_read_back(name: str, value: Any) -> None:
    made = yaml.safe_load(with_values(TEXT, {name: value}))
    assert made == {**yaml.safe_load(TEXT), name: value}
    assert type(made[name]) is type(value)


@pytest.mark.parametrize(
    "text", ["", "{a: 1, b: 2}", "a: &x 1\nb: *x", "a: 1\n", "a:\n  c: 1\n# end\n",
        "a: |\n  x\n  y\n", "---\na: 1\n...\n", "a: 'x\n  y'\nb: 1", "a:\nb: 2",
        "base: &b {r: 1}\na:\n  <<: *b\n"]
)  # fmt: skip
def test_any_text_can_be_changed(text: str) -> None:
    before = yaml.safe_load(text) or {}
    assert yaml.safe_load(with_values(text, {"a": 3})) == {**before, "a": 3}
