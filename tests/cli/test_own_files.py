"""`optuna-llmbo export` of a study that a program of the user's was searched with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optuna_llmbo.study.trial_attributes import TRIAL_CONFIG
from tests.cli.test_cli_promote import run
from tests.cli.test_command import load
from tests.cli.test_command import Search
from tests.cli.test_command import search as search


PLACE = {"storage": "sqlite:///search.db", "study": "search"}


@pytest.mark.long
def test_the_programs_own_configuration(search: Search) -> None:
    assert search(trials=2).exit_code == 0
    trial = load().trials[1]
    exported = run("export", **PLACE, trial=1, out="best")
    assert exported.exit_code == 0, exported.output
    assert "In the trial's own folder, and to be changed: output_dir." in exported.output
    assert f"Trial 1 of the study 'search': eval_loss {trial.value:.6g}" in exported.output
    made = json.loads(Path("best/train.json").read_text())
    assert made["lora_rank"] == trial.params["lora_rank"]
    assert made["training"]["learning_rate"] == trial.params["learning_rate"]
    own = json.loads(Path("train.json").read_text())
    searched = {"lora_rank", "training", "output_dir"}
    assert all(made[name] == value for name, value in own.items() if name not in searched)

    for options, message in (
        ({"to": "peft"}, "--to own writes that configuration with the trial's values"),
        ({"to": "own", "epochs": 2}, "--epochs: in this study the program"),
        ({"trial": 7}, "has no complete trial 7"),
    ):
        refused = run("export", **{**PLACE, **options}, out="no")
        assert refused.exit_code == 2 and message in refused.stderr, refused.output
    refused = run("promote", **PLACE, out="no")
    assert refused.exit_code == 2 and "made with a program of your own" in refused.stderr
    Path(load().trials[1].user_attrs[TRIAL_CONFIG]).unlink()
    gone = run("export", **PLACE, trial=1, out="again")
    assert gone.exit_code == 2 and "any more: set learning_rate=" in gone.stderr


def test_comments_say_where_the_values_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import optuna
    from optuna.trial import create_trial
    import yaml

    from optuna_llmbo.command.export import own_config
    from optuna_llmbo.study.trial_attributes import COMMAND
    from optuna_llmbo.study.trial_attributes import FINGERPRINT
    from optuna_llmbo.study.trial_attributes import TRIAL_FOLDER

    study = optuna.create_study(study_name="mine")
    study.set_user_attr(COMMAND, "train\n --config {config}")
    study.set_user_attr(FINGERPRINT, {"metric": "loss"})
    folder = tmp_path / "trial-0000"
    folder.mkdir()
    (folder / "c.yaml").write_text(f"lr: 0.1  # the rate\nout:\n  to: {folder}/out\n")
    about = {TRIAL_FOLDER: str(folder), TRIAL_CONFIG: str(folder / "c.yaml")}
    study.add_trial(create_trial(value=0.5, user_attrs=about))
    made = own_config(study)
    assert made.text == (
        "# Trial 0 of the study 'mine': loss 0.5.\n"
        "# In the trial's own folder, and to be changed: out.to.\n"
        "# The command was: train --config {config}\n"
        f"lr: 0.1  # the rate\nout:\n  to: {folder}/out\n"
    )
    assert made.name == "c.yaml" and yaml.safe_load(made.text)["lr"] == 0.1
