"""TRL trains a real model: SFT and DPO on the embedded SmolLM2, with little of everything."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
from optuna.trial import TrialState
import pytest
import yaml

from optuna_llmbo.trainer import TRLObjective
from tests.trainer.test_snapshot import assert_same
from tests.trainer.test_snapshot import seen


pytestmark = pytest.mark.slow

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "Egypt": "Cairo",
    "Peru": "Lima", "Cuba": "Havana", "Norway": "Oslo", "Greece": "Athens", "Kenya": "Nairobi",
    "Ireland": "Dublin", "Austria": "Vienna", "Poland": "Warsaw", "Chile": "Santiago",
    "Portugal": "Lisbon", "Sweden": "Stockholm",
}  # fmt: skip


@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_a_search(task: str, tmp_path: Path) -> None:
    others = dict(zip(CAPITALS, [*list(CAPITALS.values())[1:], "Paris"], strict=True))
    rows = [
        {"prompt": f"The capital of {land} is", "completion": f" {city}."}
        if task == "sft"
        else {
            "prompt": f"The capital of {land} is",
            "chosen": f" {others[land]}.",  # so that there is something to learn
            "rejected": f" {city}.",
        }
        for land, city in CAPITALS.items()
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    values = {
        "model_name_or_path": "embedded", "dataset_name": str(tmp_path / "data"), "use_peft": True,
        "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "learning_rate": 1e-3,
        "per_device_train_batch_size": 2, "num_train_epochs": 1, "max_length": 32, "bf16": False,
        "use_cpu": True, "gradient_checkpointing": False,
    }  # fmt: skip
    file = tmp_path / f"{task}.yaml"
    file.write_text(yaml.safe_dump(values))
    objective = TRLObjective(file, proxy=1.0, validation=4, reports=1, folder=tmp_path / "kept")
    model = objective.prepare().base.there[0]
    before = seen(model)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    study.enqueue_trial(objective.default_params or {})
    study.optimize(objective, n_trials=2)
    assert objective.prepare().base.there[0] is model
    assert_same(seen(model), before)
    base, control = objective.base_loss, study.trials[0]
    assert control.state == TrialState.COMPLETE and base is not None
    assert control.value is not None and control.value < base
    adapter = Path(study.best_trial.user_attrs["adapter"])
    saved = json.loads((adapter / "adapter_config.json").read_text())
    assert Path(saved["base_model_name_or_path"], "config.json").is_file()
