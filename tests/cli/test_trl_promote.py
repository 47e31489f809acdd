"""`tune --trl`, `promote` and `export`, one after the other, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from transformers import AutoModelForCausalLM

from optuna_llmbo.trainer.trl_file import read_trl_file
from tests.cli.test_cli_promote import run
from tests.trainer.test_trl_export import write_file


SPACE = """\
[rank]
type = "int"
low = 2
high = 3

[learning_rate]
type = "float"
low = 1e-3
high = 1e-2
log = true
"""


@pytest.mark.long
def test_from_a_file_to_the_model_and_back_to_the_file(
    tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, url = write_file(tmp_path), f"sqlite:///{tmp_path}/study.db"
    space = tmp_path / "space.toml"
    space.write_text(SPACE)
    tuned = run("tune", trl=path, space=space, proxy=0.5, trials=2, reports=1, test=8, storage=url,
        sampler="random", pruner="none")  # fmt: skip
    assert tuned.exit_code == 0, tuned.output
    text = path.read_text()
    path.unlink()  # the study has it
    space.unlink()
    monkeypatch.chdir(tmp_path)
    final = {"storage": url, "out": tmp_path / "final", "top": 1, "seeds": 1}
    promoted = run("promote", "--merge", **final)
    assert promoted.exit_code == 0, promoted.output
    for words in ("default, 32 examples, seed 0", "eval_loss", "(winner)", "logits differ"):
        assert words in promoted.output
    AutoModelForCausalLM.from_pretrained(tmp_path / "final" / "merged")
    record = json.loads((tmp_path / "final" / "promotion.json").read_text())
    assert [len(one["test"]) for one in record["contenders"] if one["is_default"]] == [1]

    trial = optuna.load_study(study_name="lora", storage=url).trials[1]
    about = {"storage": url, "trial": 1}
    exported = run("export", **about, to="trl", out=tmp_path / "trl")
    assert exported.exit_code == 0, exported.output
    assert "Trial 1 of the study 'lora'" in exported.output
    made = read_trl_file(tmp_path / "trl" / "sft.yaml")
    assert made.parsed().training.learning_rate == trial.params["learning_rate"]
    assert made.parsed().model.lora_r == trial.params["rank"]
    assert "# how we fine-tune" in made.text
    adapter = run("export", **about, to="peft", out=tmp_path / "peft")
    assert adapter.exit_code == 0, adapter.output
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert config["r"] == trial.params["rank"]
    assert config["base_model_name_or_path"] == str(tmp_path / "model")

    for options, message in (
        ({"to": "axolotl"}, "--to trl writes that file with the trial's values"),
        ({"to": "trl", "epochs": 3}, "--epochs: in this study the trainer"),
        ({"to": "trl", "model": "x"}, "it is the file's, model_name_or_path"),
    ):
        refused = run("export", **about, **options, out=tmp_path / "no")
        assert refused.exit_code == 2 and message in refused.stderr, refused.output
    refused = run("promote", **{**final, "device": "cpu"})
    assert refused.exit_code == 2 and "CUDA_VISIBLE_DEVICES" in refused.stderr
    path.write_text(text.replace("max_length: 64", "max_length: 32"))
    refused = run("promote", **final)
    assert refused.exit_code == 2 and "holds results of another objective" in refused.stderr


@pytest.mark.long
def test_paths_that_are_relative_to_another_folder(
    tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, url = tmp_path / "there", f"sqlite:///{tmp_path}/study.db"
    path = write_file(there)
    path.write_text(path.read_text().replace(f"{there}/", ""))
    monkeypatch.chdir(there)
    tuned = run("tune", trl="sft.yaml", trials=1, reports=1, proxy=0.5, storage=url,
        sampler="random", pruner="none")  # fmt: skip
    assert tuned.exit_code == 0, tuned.output
    monkeypatch.chdir(tmp_path)
    refused = run("promote", storage=url, out=tmp_path / "final")
    assert refused.exit_code == 2
    assert f"names 'model', which lies in '{there}'" in refused.stderr
