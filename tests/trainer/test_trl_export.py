"""A trial is exported as the user's own file, and TRL reads it as the trial was trained."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import json
from pathlib import Path
import re
import subprocess
import sys
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.promote import promote
from optuna_llmbo.study.trial_attributes import FINGERPRINT
from optuna_llmbo.trainer import export
from optuna_llmbo.trainer import TRLObjective
from optuna_llmbo.trainer.trl_file import read_trl_file
from optuna_llmbo.trainer.trl_file import TRLFile
from tests.lora.conftest import rows
from tests.tiny import make_tiny_llm


Make = Callable[..., TRLObjective]
SPACE: dict[str, BaseDistribution] = {
    "rank": IntDistribution(2, 6),
    "alpha_ratio": FloatDistribution(0.7, 4.2),
    "batch_size": CategoricalDistribution([4, 6]),
    "learning_rate": FloatDistribution(1e-4, 2e-2, log=True),
    "max_grad_norm": FloatDistribution(0.3, 1.0),
}
OTHER = {"rank": 5, "alpha_ratio": 1.34, "batch_size": 6, "learning_rate": 1.3e-3,
    "max_grad_norm": 0.5, "beta": 0.3}  # fmt: skip
SFT = """\
# how we fine-tune
model_name_or_path: {model}
dataset_name: {data}   # pairs
bf16: false
max_length: 64
use_peft: true
lora_r: 4
lora_alpha: 8
lora_target_modules: [q_proj, v_proj]
lora_dropout: 0.0
learning_rate: 2.0e-4   # as always
warmup_steps: 0.1
per_device_train_batch_size: 2
gradient_accumulation_steps: 2
num_train_epochs: 1
completion_only_loss: true
output_dir: results
report_to: none
"""
DPO = SFT.replace("completion_only_loss: true", "beta: 0.2\ndisable_dropout: true")


@pytest.fixture(autouse=True, scope="module")
def always_one_thread(one_thread: None) -> None:
    """In all tests of this file."""


def write_file(folder: Path, task: str = "sft") -> Path:
    """A file of TRL's, its model and its data: 40 training rows, and a test split."""
    model = make_tiny_llm(folder / "model", chat=True)
    data = folder / "data"
    data.mkdir(exist_ok=True)
    for split, some in (("train", rows(40)), ("test", rows(6, start=100))):
        lines = [
            {"prompt": row["prompt"] + "\n", "completion": row["response"]}
            if task == "sft"
            else {"prompt": row["prompt"], "chosen": row["response"], "rejected": "nothing"}
            for row in some
        ]
        (data / f"{split}.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    path = folder / f"{task}.yaml"
    path.write_text((SFT if task == "sft" else DPO).format(model=model, data=data))
    return path


def searched(objective: TRLObjective, n_trials: int = 2) -> optuna.Study:
    """The file's own values, and others."""
    study = optuna.create_study(study_name="mine")
    study.enqueue_trial(objective.default_params or {})
    study.enqueue_trial(OTHER)
    study.optimize(objective, n_trials=n_trials)
    return study


def reread(exported: export.Exported, folder: Path) -> TRLFile:
    ((name, text),) = exported.files.items()
    (folder / "again").mkdir(exist_ok=True)
    path = folder / "again" / name
    path.write_text(text)
    return read_trl_file(path)


def changed(one: Any, other: Any) -> dict[str, Any]:
    """The arguments that differ, with the second's values."""
    return {
        field.name: getattr(other, field.name)
        for field in dataclasses.fields(one)
        if field.init
        and getattr(one, field.name) != getattr(other, field.name)
        and field.name not in ("logging_dir", "run_name")
    }


@pytest.mark.long
@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_the_users_file_with_the_values_of_a_trial(tmp_path: Path, task: str) -> None:
    """TRL parses it into the trial's values; nothing else differs; comments stay."""
    path = write_file(tmp_path, task)
    space = {**SPACE, **({"beta": FloatDistribution(0.1, 0.5)} if task == "dpo" else {})}
    objective = TRLObjective(path, space, proxy=0.5, reports=1)
    study = searched(objective)
    made = study.trials[1]
    with pytest.raises(InputError, match="takes? whole numbers only. Round it"):
        export.to_trl(study, objective.file, 1)
    exported = export.to_trl(study, objective.file, 1, rounded_alpha=True)
    (text,) = exported.files.values()
    assert text.startswith(f"# Trial 1 of the study 'mine': eval_loss {made.value:.4f}.\n")
    assert "held out 6 rows for validation; " in text and "lora_alpha was " in text
    for kept in (
        "# how we fine-tune\n",
        "   # pairs\n",
        "   # as always\n",
        "warmup_steps: 0.1\n",
    ):
        assert kept in text
    before, after = objective.file.parsed(), reread(exported, tmp_path).parsed()
    params = made.params
    training = changed(before.training, after.training)
    expected = {"learning_rate": params["learning_rate"],
        "max_grad_norm": params["max_grad_norm"]}  # fmt: skip
    expected |= {"gradient_accumulation_steps": 3}
    if task == "dpo":
        expected["beta"] = params["beta"]
    assert training == expected
    model = changed(before.model, after.model)
    assert model == {"lora_r": 5, "lora_alpha": 7}
    assert not changed(before.script, after.script)
    # the default is the file itself
    own = export.to_trl(study, objective.file, 0)
    assert own.files[path.name].endswith(path.read_text()) and "Changed are no values" in str(own)


@pytest.mark.long
def test_a_file_that_has_changed_since(tmp_path: Path) -> None:
    path = write_file(tmp_path)
    objective = TRLObjective(path, SPACE, proxy=0.5, reports=1)
    study = searched(objective, 1)
    path.write_text(path.read_text().replace("max_length: 64", "max_length: 32"))
    with pytest.raises(InputError, match="has changed since"):
        export.to_trl(study, read_trl_file(path), 0)
    path.write_text(path.read_text().replace("max_length: 32", "max_length: 64 # back"))
    assert export.to_trl(study, read_trl_file(path), 0).files
    adapter = export.to_peft(study, 0, model=str(tmp_path / "model"))
    config = json.loads(adapter.files["adapter_config.json"])
    assert config["r"] == 4 and config["target_modules"] == ["q_proj", "v_proj"]
    with pytest.raises(InputError, match="say with --model where it is"):
        export.to_peft(study, 0, model=None)
    assert export.is_of_a_trainer(study)
    study.set_user_attr(FINGERPRINT, {"model": "x"})
    assert not export.is_of_a_trainer(study)


@pytest.mark.long
@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_a_promotion(tmp_path: Path, task: str) -> None:
    """With the file's own trainer and data, merged, and its base named by the file's model."""
    path = write_file(tmp_path, task)
    objective = TRLObjective(path, SPACE, proxy=0.5, reports=1, test=8)
    study = searched(objective)
    result = promote(study, objective, folder=tmp_path / "out", n_seeds=1, rank=lambda _: [1],
        merge=True)  # fmt: skip
    assert [one.trial for one in result.contenders] == [0, 1]
    assert result.merged is not None and result.merged.effect > 0
    assert all(len(one.test) == 1 for one in result.contenders)
    card = (result.adapter / "README.md").read_text()
    assert f"base_model: {tmp_path / 'model'}" in card and "32 examples" in card
    record = json.loads((tmp_path / "out" / "promotion.json").read_text())
    assert record["objective"]["settings"]["task"] == task


@pytest.mark.long
def test_another_revision_is_not_merged(tmp_path: Path) -> None:
    """It would be merged into the main one, which has other weights."""
    path = write_file(tmp_path)
    path.write_text(f"{path.read_text()}model_revision: v2\n")
    objective = TRLObjective(path, SPACE, proxy=0.5, reports=1)
    study = searched(objective, 1)
    told: list[str] = []
    with pytest.raises(InputError, match="has model_revision: v2"):
        promote(study, objective, folder=tmp_path / "out", merge=True, tell=told.append)
    assert not told


@pytest.mark.slow
@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_trl_trains_from_the_exported_file(tmp_path: Path, task: str) -> None:
    """The script of `trl sft --config` gets the promotion's loss from the export: the same data,
    values and seed, where validation rows have a split of their own. Without a beta in the space,
    DPO's losses are with the same one."""
    path = write_file(tmp_path, task)
    objective = TRLObjective(path, SPACE, proxy=0.5, reports=1, seed=0)
    study = searched(objective)
    result = promote(study, objective, folder=tmp_path / "out", n_seeds=1, rank=lambda _: [1])
    (ours,) = [one for one in result.contenders if one.trial == 1]
    exported = export.to_trl(study, objective.file, 1, rounded_alpha=True)
    (text,) = exported.files.values()
    config = tmp_path / "exported.yaml"
    more = "eval_strategy: epoch\nlogging_strategy: epoch\nsave_strategy: 'no'\nseed: 0\n"
    config.write_text(text + more)
    command = [sys.executable, "-m", f"trl.scripts.{task}", "--config", str(config)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs = float(re.findall(r"'eval_loss': '?([\d.e-]+)", done.stdout)[-1])
    assert theirs == pytest.approx(ours.validation[0], rel=1e-3)
