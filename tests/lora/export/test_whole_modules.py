"""Whole modules that are trained beside the adapter, in the files of every tool."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import yaml

from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.adapter import adapter
from optuna_llmbo.lora.export import Facts
from optuna_llmbo.lora.export import files
from optuna_llmbo.lora.export import TOOLS
from optuna_llmbo.lora.export import write
from optuna_llmbo.lora.export.modules import names_of_saved
from tests.lora.export.samples import facts


NAMES = ("model.embed_tokens", "lm_head")


def whole(names: tuple[str, ...] = NAMES, *, tied: bool = False, **changes: Any) -> Facts:
    """Facts of a training with whole modules."""
    made = facts(**changes)
    recipe = dataclasses.replace(made.recipe, modules_to_save=",".join(names))
    return dataclasses.replace(
        made, recipe=recipe, modules_to_save=names, ensure_weight_tying=tied
    )


@pytest.mark.parametrize("tool", TOOLS)
def test_each_tool_is_told_in_its_words(tool: str) -> None:
    made = files(whole(), tool)
    if tool == "peft":
        assert json.loads(made["adapter_config.json"])["modules_to_save"] == list(NAMES)
    elif tool == "trl":
        assert yaml.safe_load(made["sft.yaml"])["lora_modules_to_save"] == list(NAMES)
    elif tool == "llamafactory":
        assert yaml.safe_load(made["train.yaml"])["additional_target"] == ",".join(NAMES)
    elif tool == "axolotl":
        assert yaml.safe_load(made["train.yml"])["lora_modules_to_save"] == list(NAMES)
    else:
        assert "modules_to_save=['embed_tokens', 'lm_head']" in made["train.py"]
    without = "".join(files(facts(), tool).values())
    assert "modules_to_save" not in without and "additional_target" not in without


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if tool != "peft"])
def test_modules_that_share_their_weight_are_for_peft(tool: str) -> None:
    with pytest.raises(InputError, match="they share their weight, which .* would train apart"):
        files(whole(tied=True), tool)
    config = json.loads(files(whole(tied=True), "peft")["adapter_config.json"])
    assert config["ensure_weight_tying"] is True


def test_unsloth_has_whole_copies_of_two_modules_only() -> None:
    with pytest.raises(InputError, match="modules_to_save='model.norm': Unsloth trains whole"):
        files(whole(("model.norm",)), "unsloth")
    with pytest.raises(InputError, match="target_modules='lm_head': Unsloth would train whole"):
        files(facts(target_modules=("q_proj", "lm_head")), "unsloth")


def test_trl_takes_it(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    write(whole(), "trl", tmp_path)
    arguments = ["--config", str(tmp_path / "sft.yaml"), "--use_cpu", "true"]
    kinds = (trl.ScriptArguments, trl.SFTConfig, trl.ModelConfig)
    *_, model = trl.TrlParser(kinds).parse_args_and_config(arguments)
    assert model.lora_modules_to_save == list(NAMES)


def test_peft_trains_what_a_trial_trains(tmp_path: Path, tiny_llm: Path) -> None:
    """On tied embeddings."""
    names, tied = names_of_saved(str(tiny_llm), "lm_head")
    made = whole(names, tied=tied)
    write(made, "peft", tmp_path)

    def trained(model: Any) -> set[str]:
        return {name for name, p in model.named_parameters() if p.requires_grad}

    ours, theirs = (
        load_model(resolve_source(tiny_llm), device="cpu", dtype=torch.float32).model
        for _ in range(2)
    )
    peft.get_peft_model(theirs, peft.LoraConfig.from_pretrained(tmp_path))
    with adapter(ours, made.recipe, seed=0):
        assert trained(ours) == trained(theirs)
        assert theirs.get_input_embeddings().weight is theirs.get_output_embeddings().weight


def test_names_that_do_not_fit_the_recipe() -> None:
    with pytest.raises(InputError, match=r"modules_to_save=\('lm_head',\): the recipe has 'none'"):
        dataclasses.replace(facts(), modules_to_save=("lm_head",))
