"""`optuna-llmbo proxy-check`, `tune` and `promote`, one after the other, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from typer.testing import CliRunner
from typer.testing import Result

from optuna_llmbo import cli
from optuna_llmbo.lora.proxy_agreement import read_check
from tests.lora.conftest import rows


def run(command: str, *flags: str, **options: object) -> Result:
    arguments = [command, *flags]
    for name, value in options.items():
        arguments += [f"--{name.replace('_', '-')}", str(value)]
    return CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200"})


@pytest.fixture
def about(tiny_llm: Path, tmp_path: Path) -> dict[str, object]:
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows(60)))
    space = tmp_path / "space.toml"
    space.write_text(
        '[rank]\ntype = "int"\nlow = 1\nhigh = 8\n'
        '[batch_size]\ntype = "int"\nlow = 2\nhigh = 4\n'
        '[learning_rate]\ntype = "float"\nlow = 1e-4\nhigh = 1e-2\nlog = true\n'
    )
    return {"model": tiny_llm, "train": data, "space": space, "test": 8, "device": "cpu"}


@pytest.mark.long
def test_from_the_proxy_to_the_adapter(about: dict[str, object], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    check = {**about, "out": tmp_path / "check", "configs": 4, "fractions": "0.2,0.5"}
    checked = run("proxy-check", "--figure", **check)
    assert checked.exit_code == 0, checked.output
    assert "configuration 4 of 4, 47 examples" in checked.output
    recommended = read_check(tmp_path / "check").recommended
    advice = "None of these" if recommended is None else f"Recommended: {recommended:g}"
    assert advice in checked.output
    assert (tmp_path / "check" / "proxy-check.svg").exists()
    assert "| 0.2 | 9 |" in (tmp_path / "check" / "proxy-check.md").read_text()
    again = run("proxy-check", "--json", **check)  # what is kept is not trained again
    (summary,) = map(json.loads, again.stdout.splitlines())
    assert summary["event"] == "summary" and summary["configurations"] == 4
    assert [one["examples"] for one in summary["fractions"]] == [9, 24]
    quiet = run("proxy-check", "--quiet", **check)
    assert quiet.stdout.strip() == (tmp_path / "check" / "proxy-check.md").read_text().strip()
    assert read_check(tmp_path / "check").losses.shape == (3, 4)

    tuned = run("tune", **about, proxy=0.5, trials=3, storage=url, sampler="random")
    assert tuned.exit_code == 0, tuned.output
    final = {"storage": url, "out": tmp_path / "final", "top": 1, "seeds": 2, "device": "cpu"}
    promoted = run("promote", "--merge", **final)
    assert promoted.exit_code == 0, promoted.output
    folders = [str(tmp_path / "final" / name) for name in ("adapter", "merged")]
    for words in ("default, 47 examples, seed 1", "(winner)", "logits differ", *folders):
        assert words in promoted.output
    adapter = {path.name for path in (tmp_path / "final" / "adapter").iterdir()}
    assert adapter == {"adapter_config.json", "adapter_model.safetensors", "README.md",
        "chat_template.jinja",
        "tokenizer.json", "tokenizer_config.json"}  # fmt: skip
    record = json.loads((tmp_path / "final" / "promotion.json").read_text())
    assert [len(one["test"]) for one in record["contenders"] if one["is_default"]] == [2]
    merged = json.loads(run("promote", "--merge", "--json", **final).stdout)["merged"]
    assert merged.pop("folder") == folders[1] and merged == record["merged"]
    exported = run("export", storage=url, to="peft", out=tmp_path / "peft")
    assert exported.exit_code == 0, exported.output


def test_a_study_that_was_made_elsewhere(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(storage=url, study_name="mine")
    for name, message in (
        ("mine", "it was not made by `optuna-llmbo tune`"),
        ("theirs", "there is no study 'theirs'"),
    ):
        result = run("promote", storage=url, study=name, out=tmp_path / "final")
        assert result.exit_code == 2 and message in result.stderr


def test_bad_fractions(about: dict[str, object], tmp_path: Path) -> None:
    result = run("proxy-check", **about, out=tmp_path, fractions="0.1;0.2")
    assert result.exit_code == 2 and "got '0.1;0.2'" in result.stderr


@pytest.mark.long
@pytest.mark.parametrize("after", ["removed", "another --space"])
def test_a_space_file_that_changed_after_the_search(
    about: dict[str, object], tmp_path: Path, after: str
) -> None:
    """What is promoted and exported is what the trial was."""
    url = f"sqlite:///{tmp_path}/study.db"
    common = {**about, "proxy": 0.5, "reports": 1, "storage": url, "sampler": "random"}
    tuned = run("tune", **common, trials=2)
    assert tuned.exit_code == 0, tuned.output
    trial = optuna.load_study(study_name="lora", storage=url).trials[1]
    space = Path(str(about["space"]))
    if after == "removed":
        space.unlink()
    else:
        other = tmp_path / "other.toml"
        other.write_text('[batch_size]\ntype = "int"\nlow = 3\nhigh = 3\n')
        common["space"] = other
        again = run("tune", **common, trials=3)
        assert again.exit_code == 0, again.output
        controls = optuna.load_study(study_name="lora", storage=url).trials
        assert [t.user_attrs["is_default"] for t in controls] == [True, False, True]
    promoted = run("promote", storage=url, out=tmp_path / "final", top=9, seeds=1, device="cpu")
    assert promoted.exit_code == 0, promoted.output
    record = json.loads((tmp_path / "final" / "promotion.json").read_text())
    (ours,) = [one for one in record["contenders"] if one["trial"] == trial.number]
    assert ours["params"] == trial.params
    assert ours["recipe"]["rank"] == trial.params["rank"]
    assert ours["recipe"]["learning_rate"] == trial.params["learning_rate"]
    exported = run("export", storage=url, to="peft", trial=trial.number, out=tmp_path / "peft")
    assert exported.exit_code == 0, exported.output
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert config["r"] == trial.params["rank"]
