"""TRL's files: which script they are for, what they say, what they cannot say."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.trainer import Configuration
from optuna_llmbo.trainer.trl_file import data_of
from optuna_llmbo.trainer.trl_file import read_trl_file
from optuna_llmbo.trainer.trl_values import arguments_of
from optuna_llmbo.trainer.trl_values import values_in


MakeFile = Callable[..., Path]


@pytest.mark.parametrize(
    ("changes", "name", "task", "expected"),
    [
        ({"packing": False}, "run.yaml", None, "sft"),
        ({"beta": 0.2}, "run.yaml", None, "dpo"),
        ({"beta": 0.2}, "my_sft.yaml", None, "dpo"),  # keys before names
        ({}, "my_sft.yaml", None, "sft"),
        ({}, "DPO.yaml", None, "dpo"),
        ({}, "run.yaml", "dpo", "dpo"),
        ({"packing": False}, "run.yaml", "dpo", "dpo"),  # which TRL then does not accept
    ],
)
def test_which_script(
    changes: dict[str, Any], name: str, task: str | None, expected: str, make_file: MakeFile
) -> None:
    assert read_trl_file(make_file(name=name, **changes), task).task == expected


@pytest.mark.parametrize(
    ("changes", "name", "message"),
    [
        ({}, "run.yaml", "neither its keys nor its name say it"),
        ({"beta": 0.1, "packing": True}, "run.yaml", "'packing', which is for SFT, and 'beta'"),
    ],
)
def test_not_clear_which_script(
    changes: dict[str, Any], name: str, message: str, make_file: MakeFile
) -> None:
    with pytest.raises(InputError, match=f"{message}.*--trl-task"):
        read_trl_file(make_file(name=name, **changes))


def test_what_is_no_file_of_trl(tmp_path: Path, make_file: MakeFile) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_trl_file(tmp_path / "none.yaml")
    for text, message in (("- 1", "arguments by name"), ("a: [", "no valid YAML|not valid YAML")):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(InputError, match=message):
            read_trl_file(tmp_path / "bad.yaml")
    with pytest.raises(InputError, match="unknown arguments: learning_rat$"):
        read_trl_file(make_file(learning_rat=1e-3)).parsed()
    with pytest.raises(InputError, match="no file for `trl sft`: .*lora_r"):
        read_trl_file(make_file(lora_r="many")).parsed()
    with pytest.raises(InputError, match="trl_task must be one of sft, dpo"):
        read_trl_file(make_file(), "ppo")


def test_the_environment_is_set_as_trl_does(
    make_file: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "before")
    file = read_trl_file(make_file(env={"OURS": 3}))
    file.parsed()
    assert os.environ["OURS"] == "before"
    file.set_environment()
    assert os.environ["OURS"] == "3"
    assert "env" not in file.settings


def test_the_data(make_file: MakeFile, tmp_path: Path) -> None:
    file = read_trl_file(make_file())
    train, test = data_of(file)
    assert len(train) == 40 and test is None
    (tmp_path / "sft-data" / "test.jsonl").write_text('{"prompt": "x", "completion": "y"}\n')
    train, test = data_of(file)
    assert len(train) == 40 and test is not None and len(test) == 1
    only = [{"path": "json", "data_files": str(tmp_path / "sft-data" / "test.jsonl")}]
    train, test = data_of(read_trl_file(make_file(dataset_name=None, datasets=only)))
    assert len(train) == 1 and test is None
    for changes, message in (
        ({"dataset_name": None}, "names no data"),
        ({"dataset_streaming": True}, "streams its data"),
        ({"dataset_name": str(tmp_path / "nowhere")}, "cannot load the data"),
        ({"dataset_train_split": "training"}, "have no split 'training', only train, test"),
    ):
        with pytest.raises(InputError, match=message):
            data_of(read_trl_file(make_file(**changes)))


def values(path: Path, n: int = 100) -> Any:
    return values_in(read_trl_file(path), n, "q_proj,v_proj")


def test_the_defaults_are_the_files(make_file: MakeFile) -> None:
    found = values(make_file(use_dora=True, warmup_steps=5, optim="adafactor", weight_decay=0.1))
    assert found.defaults == {
        "rank": 4,
        "lora_alpha": 8.0,
        "lora_dropout": 0.05,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "variant": "dora",
        "weight_decay": 0.1,
        "warmup_ratio": 0.2,  # 5 of 25 steps
        "target_modules": "q_proj,v_proj",
        "modules_to_save": "none",
        "optimizer": "adafactor",
        "schedule": "linear",
        "epochs": 1,
    }
    assert found.extra == {} and found.at_once == 2
    assert values(make_file(warmup_steps=0.1)).defaults["warmup_ratio"] == 0.1
    assert values(make_file("dpo", beta=0.3)).extra == {"beta": 0.3}


def test_what_a_recipe_has_no_word_for(make_file: MakeFile) -> None:
    found = values(make_file(optim="lion_32bit", lr_scheduler_type="polynomial", max_steps=7))
    assert found.extra == {
        "optim": "lion_32bit",
        "lr_scheduler_type": "polynomial",
        "max_steps": 7,
    }
    assert values(make_file(num_train_epochs=0.5)).extra == {"num_train_epochs": 0.5}


def test_files_that_cannot_be_searched(make_file: MakeFile) -> None:
    with pytest.raises(InputError, match="trains all weights"):
        values(make_file(use_peft=False))
    with pytest.raises(InputError, match="both use_dora and use_rslora"):
        values(make_file(use_dora=True, use_rslora=True))


SAME = LoRARecipe(
    rank=4, lora_alpha=8.0, lora_dropout=0.05, batch_size=4, learning_rate=1e-3,
    warmup_ratio=0.0, target_modules="q_proj,v_proj",
)  # fmt: skip


def written(path: Path, extra: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    configuration = Configuration(dataclasses.replace(SAME, **changes), extra or {})
    return arguments_of(
        configuration, read_trl_file(path), SAME, n_examples=100, at_once=2, layers=lambda n: n
    )


def test_a_configuration_as_arguments(make_file: MakeFile) -> None:
    file = make_file(optim="adamw_torch")
    same = written(file)
    assert "lora_target_modules" not in same and "optim" not in same  # as the file has them
    assert same["per_device_train_batch_size"] == 2 == same["gradient_accumulation_steps"]
    other = written(
        file, rank=8, batch_size=9, variant="rslora", epochs=3, warmup_ratio=0.1,
        optimizer="adafactor", schedule="cosine", target_modules="all-linear",
    )  # fmt: skip
    assert other["lora_r"] == 8 and other["use_rslora"] and not other["use_dora"]
    assert (other["per_device_train_batch_size"], other["gradient_accumulation_steps"]) == (1, 9)
    assert other["warmup_steps"] == 4  # 0.1 of 3 * ceil(100 / 9)
    assert other["optim"] == "adafactor" and other["lr_scheduler_type"] == "cosine"
    assert other["lora_target_modules"] == ["all-linear"] and other["num_train_epochs"] == 3
    parsed = read_trl_file(file).parsed(other)
    assert parsed.model.lora_target_modules == "all-linear"  # TRL's own form of one name
    assert parsed.training.learning_rate == 1e-3


def test_one_layer_is_a_name_and_no_pattern(make_file: MakeFile) -> None:
    """TRL takes the only name out of its list, and peft takes such for a pattern."""
    import re

    (pattern,) = written(make_file(), target_modules="q_proj")["lora_target_modules"]
    assert re.fullmatch(pattern, "model.layers.0.self_attn.q_proj")
    assert not re.fullmatch(pattern, "model.layers.0.self_attn.seq_proj")


def test_what_is_extra_goes_first(make_file: MakeFile) -> None:
    made = written(make_file(), {"max_steps": 50, "optim": "lion_32bit"}, warmup_ratio=0.1)
    assert made["max_steps"] == 50 and made["warmup_steps"] == 5 and made["optim"] == "lion_32bit"


@pytest.mark.parametrize(
    "changes",
    [{"variant": "pissa"}, {"lr_ratio": 2.0}, {"bias": "all"}, {"init": "gaussian"}],
)
def test_what_a_file_cannot_express(changes: dict[str, Any], make_file: MakeFile) -> None:
    with pytest.raises(InputError, match=f"{next(iter(changes))}=.*TRL's files cannot express it"):
        written(make_file(), **changes)
