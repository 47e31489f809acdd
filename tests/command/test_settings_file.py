from __future__ import annotations

import json
from pathlib import Path
import tomllib
from typing import Any

import pytest
import yaml

from optuna_llmbo.command.settings_file import SettingsFile
from optuna_llmbo.errors import InputError


YAML = """\
# how we train
model: SmolLM2   # the base
learning_rate: 1e-4
lora_rank: 8
lora_target: [q_proj, v_proj]
bf16: yes
quoted: "no"
single: 'it''s'
release: "1.10"
octal: 010
time: 12:30
empty:
long: {long}
text: |
  two
  lines
folded: >-
  one
  line
deepspeed:
  zero:
    stage: 2
    buckets: 5.0e+8
datasets:
- path: a.jsonl
  type: alpaca
- path: b.jsonl
  type: chat
base: &base {{x: 1}}
other:
  <<: *base
  y: 2
same: *base
"""


def file_of(folder: Path, text: str, ending: str = "yaml") -> SettingsFile:
    path = folder / f"train.{ending}"
    path.write_text(text)
    return SettingsFile(path)


def read(text: str, ending: str = "yaml") -> Any:
    """As programs read it."""
    readers = {"yaml": yaml.safe_load, "json": json.loads, "toml": tomllib.loads}
    return readers[ending](text)


@pytest.fixture
def nasty(tmp_path: Path) -> SettingsFile:
    return file_of(tmp_path, YAML.format(long="word " * 60))


def test_only_what_is_set_changes(nasty: SettingsFile) -> None:
    """Read by a parser of YAML 1.1, which has other ideas of what is a number or boolean."""
    before = read(nasty.path.read_text())
    after = read(
        nasty.with_values(
            {"learning_rate": 2e-5, "deepspeed.zero.stage": 3, "datasets.1.type": "x"}
        )
    )
    assert after["learning_rate"] == 2e-5 and isinstance(after["learning_rate"], float)
    assert after["deepspeed"]["zero"]["stage"] == 3 and after["datasets"][1]["type"] == "x"
    after["learning_rate"] = before["learning_rate"]
    after["deepspeed"]["zero"]["stage"], after["datasets"][1]["type"] = 2, "chat"
    assert after == before


def test_comments_and_the_writing_of_other_values_stay(nasty: SettingsFile) -> None:
    lines = nasty.with_values({"lora_rank": 16}).splitlines()
    for kept in (
        "# how we train",
        "model: SmolLM2   # the base",
        "learning_rate: 1e-4",
        "bf16: yes",
    ):
        assert kept in lines
    assert "lora_rank: 16" in lines


@pytest.mark.parametrize(
    "value",
    [
        1e-5,
        1.5e-7,
        1e22,
        0.1,
        3.0,
        -2.5e-9,
        5e-324,
        7,
        0,
        True,
        False,
        "no",
        "1e-4",
        "012",
        "12:30",
        "null",
        "~",
        "yes",
        "a: b",
        "# x",
        "",
        "line\nline",
        "é",
        [1, 2.5e-8, "on"],
        ["a"],
    ],
)
@pytest.mark.parametrize("ending", ["yaml", "json", "toml"])
def test_values_are_read_as_they_were_meant(tmp_path: Path, ending: str, value: Any) -> None:
    texts = {"yaml": "a:\n  b: 1\n", "json": '{"a": {"b": 1}}', "toml": "[a]\nb = 1\n"}
    file = file_of(tmp_path, texts[ending], ending)
    got = read(file.with_values({"a.b": value, "new": value}), ending)
    for one in (got["a"]["b"], got["new"]):
        assert one == value and type(one) is type(value)


def test_a_key_that_is_added_makes_the_tables_on_its_way(tmp_path: Path) -> None:
    for ending, text in (("yaml", "a: 1\n"), ("json", '{"a": 1}'), ("toml", "a = 1\n")):
        got = read(file_of(tmp_path, text, ending).with_values({"b.c.d": 2}), ending)
        assert got == {"a": 1, "b": {"c": {"d": 2}}}


def test_toml_keeps_comments(tmp_path: Path) -> None:
    file = file_of(tmp_path, "# ours\n[a]\nb = 1 # small\nc = 2\n", "toml")
    assert file.with_values({"a.b": 2.0}) == "# ours\n[a]\nb = 2.0 # small\nc = 2\n"


def test_names_with_dots_and_keys_that_are_numbers(tmp_path: Path) -> None:
    file = file_of(tmp_path, "a.b: 1\na:\n  b: 2\n1:\n  c: 3\n")
    assert file["a.b"] == 1 and file["1.c"] == 3
    assert read(file.with_values({"a.b": 5, "1.c": 6})) == {"a.b": 5, "a": {"b": 2}, 1: {"c": 6}}


def test_the_leaves(tmp_path: Path) -> None:
    file = file_of(tmp_path, "a: {b: 1, c: [1, 2]}\nd:\n- e: x\n- f: y\n")
    assert file.leaves() == {"a.b": 1, "a.c": [1, 2], "d.0.e": "x", "d.1.f": "y"}


def test_the_nearest_key_is_named(nasty: SettingsFile) -> None:
    with pytest.raises(InputError, match=r"no key 'lora_rnk'. Did you mean 'lora_rank'\?"):
        nasty["lora_rnk"]
    with pytest.raises(InputError, match="It has 'deepspeed.zero.stage'"):
        nasty["stage"]
    assert "datasets.0.path" in nasty and "datasets.2.path" not in nasty


@pytest.mark.parametrize(
    ("ending", "text", "message"),
    [
        ("yaml", "a: [1", "is not valid YAML"),
        ("yaml", "a: 1\na: 2\n", "is not valid YAML"),
        ("yaml", "a: 1\n---\nb: 1\n", "is not valid YAML"),
        ("json", "{", "is not valid JSON"),
        ("toml", "a = ", "is not valid TOML"),
        ("yaml", "- a\n", "holds a list"),
        ("yaml", "", "holds nothing"),
        ("json", "3", "holds the value 3"),
        ("ini", "a = 1", "must end with one of .yaml, .yml, .json, .toml"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, ending: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        file_of(tmp_path, text, ending)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read .No such file"):
        SettingsFile(tmp_path / "none.yaml")


def test_what_a_format_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be null"):
        file_of(tmp_path, "a = 1\n", "toml").with_values({"a": None})
    with pytest.raises(InputError, match="'a.b' cannot be added: 'b' would stand in the value 1"):
        file_of(tmp_path, "a: 1\n").with_values({"a.b": 1})
