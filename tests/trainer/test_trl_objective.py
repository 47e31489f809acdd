"""Searches around TRL's own files, in Python and on the command line."""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
import pickle
from typing import Any

import datasets
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import FixedTrial
from optuna.trial import TrialState
import pytest
import trl
from typer.testing import CliRunner
import yaml

from optuna_llmbo import cli
from optuna_llmbo.errors import InputError
from optuna_llmbo.knowledge import load_knowledge
from optuna_llmbo.trainer import Configuration
from optuna_llmbo.trainer import TRLObjective
from optuna_llmbo.trainer.trl_objective import direction_of
from tests.trainer.test_snapshot import assert_same
from tests.trainer.test_snapshot import seen


pytestmark = pytest.mark.long

MakeFile = Callable[..., Path]

QUICK: dict[str, Any] = {"proxy": 0.5, "reports": 2}


def alone(path: Path, task: str, rows: Any, validation: Any, **changes: Any) -> float:
    """The loss that TRL's own script would have on these rows: the model loaded by TRL, and its
    trainer left to itself."""
    library: Any = trl
    config = library.SFTConfig if task == "sft" else library.DPOConfig
    trainer = library.SFTTrainer if task == "sft" else library.DPOTrainer
    parser = library.TrlParser((library.ScriptArguments, config, library.ModelConfig))
    script, training, model = parser.parse_args_and_config(["--config", str(path)])
    for name, value in {**changes, "output_dir": str(path.parent / "alone")}.items():
        setattr(model if hasattr(model, name) else training, name, value)
    training.report_to, training.save_strategy = [], "no"
    made = trainer(
        model=model.model_name_or_path,
        args=training,
        train_dataset=rows,
        eval_dataset=validation,
        peft_config=library.get_peft_config(model),
    )
    made.train()
    return float(made.evaluate()["eval_loss"])


@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_the_default_is_what_trl_alone_does(task: str, make_file: MakeFile) -> None:
    """The same file, the same rows, the same seed: the same loss."""
    path = make_file(task, lora_dropout=0.0, seed=7)
    objective = TRLObjective(path, proxy=0.5, reports=1)
    rows = objective.prepare().rows
    assert objective.default_params is not None
    expected = alone(path, task, rows.train, rows.validation)
    assert objective(FixedTrial(objective.default_params)) == pytest.approx(expected, abs=1e-5)
    assert expected < objective.base_loss - 1e-3  # type: ignore[operator]


def test_a_search_of_sft(make_file: MakeFile) -> None:
    objective = TRLObjective(make_file(warmup_steps=0.1), test=6, **QUICK)
    study = optuna.create_study(
        sampler=optuna.samplers.RandomSampler(seed=0), pruner=optuna.pruners.NopPruner()
    )
    model = objective.prepare().base.there[0]
    before = seen(model)
    study.enqueue_trial(objective.default_params or {})
    study.optimize(objective, n_trials=3)
    assert_same(seen(model), before)
    control = study.trials[0]
    assert control.params == {
        "rank": 4,
        "alpha_ratio": 2.0,
        "lora_dropout": 0.05,
        "batch_size": 4,
        "learning_rate": 1e-3,
    }
    for trial in study.trials:
        assert trial.state == TrialState.COMPLETE and list(trial.intermediate_values) == [50, 100]
        assert trial.user_attrs["recipe"]["target_modules"] == "q_proj,v_proj"  # peft's for Llama
        assert trial.user_attrs["tokens"] > 100
    assert objective.context["method"] == "lora"
    assert objective.score(objective.configuration_of(study.best_trial)) > 0


def test_a_search_of_dpo(make_file: MakeFile) -> None:
    objective = TRLObjective(make_file("dpo", beta=0.2), **QUICK)
    assert objective.base_loss == pytest.approx(0.6931, abs=1e-4)  # log 2: nothing is preferred
    assert objective.default_params is not None
    assert objective.default_params["beta"] == 0.2
    assert "lora_dropout" not in objective.default_params
    trial = FixedTrial({**objective.default_params, "beta": 0.05, "learning_rate": 1e-2})
    assert objective(trial) < 0.68
    assert trial.user_attrs["extra_hyperparameters"] == {"beta": 0.05}
    assert objective.context["method"] == "preference"


def test_the_loss_of_dpo_is_of_one_beta(make_file: MakeFile) -> None:
    """Without any training to speak of, every beta has the same loss; TRL's own would differ."""
    path = make_file("dpo", beta=0.2, lora_dropout=0.0, seed=3)
    objective = TRLObjective(path, **{**QUICK, "reports": 1})
    usual = objective.default_params or {}
    still = {**usual, "learning_rate": 1e-2}
    one, other = (objective(FixedTrial({**still, "beta": beta})) for beta in (0.2, 0.9))
    rows = objective.prepare().rows
    # trained with 0.9, measured with 0.2: TRL's trainer with its beta changed after the training
    theirs = alone(path, "dpo", rows.train, rows.validation, beta=0.9, learning_rate=1e-2,
                   per_device_train_batch_size=usual["batch_size"], gradient_accumulation_steps=1)  # fmt: skip  # noqa: E501
    assert abs(theirs - 0.6931) > 2 * abs(other - 0.6931)
    assert 0.3 < (other - 0.6931) / (one - 0.6931) < 3


def test_a_split_of_the_data_is_the_validation(make_file: MakeFile, tmp_path: Path) -> None:
    path = make_file()
    rows = [{"prompt": f"go on from {i}", "completion": f"{i + 1}"} for i in range(5)]
    (tmp_path / "sft-data" / "test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert list(TRLObjective(path, **QUICK).prepare().rows.validation) == rows
    own = TRLObjective(path, validation=7, **QUICK).prepare().rows
    assert len(own.validation) == 7 and "count" in own.validation[0]["prompt"]


def test_any_argument_of_trl_can_be_searched(make_file: MakeFile) -> None:
    space = {
        "learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "neftune_noise_alpha": FloatDistribution(0.0, 10.0),
        "loss_type": CategoricalDistribution(["nll", "dft"]),
        "epochs": IntDistribution(1, 3),
    }
    objective = TRLObjective(make_file(max_steps=5, neftune_noise_alpha=3.0), space, **QUICK)
    assert objective.default_params == {
        "learning_rate": 1e-3, "neftune_noise_alpha": 3.0, "loss_type": "nll", "epochs": 1,
    }  # fmt: skip
    trial = FixedTrial({**objective.default_params, "loss_type": "dft", "epochs": 2})
    objective(trial)
    assert trial.user_attrs["extra_hyperparameters"] == {
        "neftune_noise_alpha": 3.0, "loss_type": "dft",
    }  # fmt: skip
    assert trial.user_attrs["steps"] == 2 * 5  # not max_steps: epochs are searched


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            {"lora_rnk": IntDistribution(1, 2)},
            "neither a hyperparameter .* nor an argument of TRL",
        ),
        ({"per_device_train_batch_size": IntDistribution(1, 2)}, "search 'batch_size' instead"),
        ({"use_dora": CategoricalDistribution([True])}, "search 'variant' instead"),
        ({"seed": IntDistribution(1, 2)}, "is no hyperparameter"),
        ({"variant": CategoricalDistribution(["lora", "pissa"])}, "cannot express it, only lora"),
        ({"lr_ratio": FloatDistribution(1, 8)}, "'lr_ratio', which TRL's files cannot express"),
    ],
)
def test_spaces_that_cannot_be_searched(
    space: dict[str, Any], message: str, make_file: MakeFile
) -> None:
    with pytest.raises(InputError, match=message):
        TRLObjective(make_file(), space, **QUICK).prepare()


def test_dropout_that_dpo_switches_off(make_file: MakeFile) -> None:
    space = {"dropout": FloatDistribution(0.0, 0.2)}
    with pytest.raises(InputError, match="DPO switches off .*disable_dropout: false"):
        TRLObjective(make_file("dpo"), space, **QUICK).prepare()
    path = make_file("dpo", disable_dropout=False)
    objective = TRLObjective(path, space, **QUICK)
    assert objective.default_params == {"dropout": 0.05}
    assert "lora_dropout" in TRLObjective(path, **QUICK).prepare().space.distributions


def test_trl_switches_the_dropout_of_adapters_off(make_file: MakeFile) -> None:
    """The reason why it is not searched; if this changes, so should the space."""
    objective = TRLObjective(make_file("dpo", lora_dropout=0.5), **QUICK)
    with objective.trained(objective.prepare().space.defaults) as trained:
        model = trained.trainer.model
        assert {m.p for n, m in model.named_modules() if "lora_dropout.default" in n} == {0}


def test_a_study_is_of_one_file(make_file: MakeFile, tmp_path: Path) -> None:
    study = optuna.create_study()
    TRLObjective(make_file(), **QUICK).check_study(study)
    TRLObjective(make_file(output_dir="elsewhere", logging_steps=3), **QUICK).check_study(study)
    with pytest.raises(InputError, match="another objective, which differs in .*max_length.*32"):
        TRLObjective(make_file(max_length=32), **QUICK).check_study(study)
    with pytest.raises(InputError, match="another objective"):
        TRLObjective(make_file("dpo"), **QUICK).check_study(study)


def test_the_result_as_a_file_of_trl(make_file: MakeFile) -> None:
    """It says what was found for a training on all the data, and TRL reads it."""
    path = make_file(warmup_steps=0.1, packing=False)
    objective = TRLObjective(path, **QUICK)
    configuration = objective.prepare().space.configuration(
        {
            "rank": 8,
            "alpha_ratio": 3.0,
            "batch_size": 3,
            "learning_rate": 2e-3,
            "lora_dropout": 0.1,
        }
    )
    found = path.with_name("found-sft.yaml")
    found.write_text(objective.yaml_of(configuration))
    written = yaml.safe_load(found.read_text())
    assert written["lora_r"] == 8 and written["lora_alpha"] == 24 and written["packing"] is False
    assert written["warmup_steps"] == 0.1  # the file says a share, of however many steps
    parser: Any = trl.TrlParser((trl.ScriptArguments, trl.SFTConfig, trl.ModelConfig))
    _, training, model = parser.parse_args_and_config(["--config", str(found)])
    assert training.learning_rate == 2e-3 and model.lora_dropout == 0.1
    assert training.per_device_train_batch_size * training.gradient_accumulation_steps == 3
    recipe = objective.prepare().space.configuration({"rank": 3, "alpha_ratio": 1.5}).recipe
    with pytest.raises(InputError, match="lora_alpha=4.5: TRL's files take whole numbers only"):
        objective.yaml_of(Configuration(recipe))


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        ("eval_loss", "minimize"),
        ("eval_mean_token_accuracy", "maximize"),
        ("eval_rewards/accuracies", "maximize"),
        ("eval_rewards/margins", "maximize"),
    ],
)
def test_directions(metric: str, direction: str) -> None:
    assert direction_of(metric) == direction


def test_a_direction_that_nobody_knows() -> None:
    with pytest.raises(InputError, match="metric='eval_entropy': is it to be minimized or"):
        direction_of("eval_entropy")


@pytest.mark.parametrize(("task", "method"), [("sft", "lora"), ("dpo", "preference")])
def test_the_context_says_which_rates_are_typical(
    task: str, method: str, make_file: MakeFile
) -> None:
    objective = TRLObjective(make_file(task), **QUICK)
    names = list(objective.prepare().space.distributions)
    knowledge = load_knowledge("auto", objective.context).relevant(names)
    low, high = knowledge.typical_range("learning_rate") or (0, 0)
    assert (high <= 1e-4) == (method == "preference")


# --- the command line


def invoke(*arguments: object) -> Any:
    texts = [*map(str, arguments)]
    return CliRunner().invoke(cli.app, ["tune", *texts], env={"COLUMNS": "200"})


@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_tune(task: str, make_file: MakeFile, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    options = ["--trl", make_file(task), "--proxy", 0.5, "--reports", 2, "--storage", storage,
               "--sampler", "random"]  # fmt: skip
    for trials in (2, 3):  # the second call goes on
        result = invoke(*options, "--trials", trials)
        assert result.exit_code == 0, result.output
    assert "default (#0)" in result.stdout and "Resuming: 2 of 3" in result.output
    study = optuna.load_study(study_name="lora", storage=storage)
    assert len(study.trials) == 3 and study.trials[0].user_attrs["is_default"]
    recorded = study.user_attrs["lora_options"]
    assert recorded["trl_task"] == task and Path(recorded["trl"]).is_absolute()
    assert list(recorded["space"]) == list(study.trials[0].params)
    assert recorded["seed"] == 42 == study.user_attrs["lora_objective"]["seed"]  # TRL's own


def test_tune_with_a_space_and_a_metric(make_file: MakeFile, tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text('[beta]\ntype = "float"\nlow = 0.01\nhigh = 0.5\nlog = true\n')
    storage = f"sqlite:///{tmp_path}/study.db"
    result = invoke(
        "--trl", make_file(name="run.yaml", task="dpo"), "--trl-task", "dpo", "--space", space,
        "--metric", "eval_rewards/accuracies", "--trials", 1, "--proxy", 0.5, "--reports", 1,
        "--storage", storage, "--sampler", "random", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[0]["metrics"] == [{"name": "eval_rewards/accuracies", "direction": "maximize"}]
    assert events[1]["params"] == {"beta": 0.1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "x"], "--model with --trl: TRL's file decides that"),
        (["--max-length", "64"], "--max-length with --trl"),
        (["--parallel", "2"], "--parallel with --trl"),
        (["--metric", "eval_loss", "--metric", "eval_x"], "is on one metric"),
        (["--metric", "eval_entropy"], "is it to be minimized or maximized"),
        (["--trl-task", "ppo"], "trl_task must be one of sft, dpo"),
    ],
)
def test_options_that_the_file_decides(
    options: list[str], message: str, make_file: MakeFile, tmp_path: Path
) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    result = invoke("--trl", make_file(), *options, "--storage", storage)
    assert result.exit_code == 2 and message in result.stderr, result.output


def test_neither_a_file_nor_a_model() -> None:
    for options, message in (
        (["--train", "x.jsonl"], "--model is missing: give it, or a file of TRL's with --trl"),
        (["--model", "x"], "--train is missing"),
        (["--model", "x", "--train", "y", "--trl-task", "sft"], "expected a file with --trl"),
    ):
        result = invoke(*options)
        assert result.exit_code == 2 and message in result.stderr


def test_to_another_process(make_file: MakeFile) -> None:
    objective = TRLObjective(make_file(), **QUICK)
    value = objective(FixedTrial(objective.default_params or {}))
    copy = pickle.loads(pickle.dumps(objective))
    assert copy._prepared is None
    assert copy(FixedTrial(copy.default_params)) == value


def test_data_in_memory_for_the_test(make_file: MakeFile) -> None:
    held_out = datasets.Dataset.from_list([{"prompt": "go on from 90", "completion": "91"}])
    objective = TRLObjective(make_file(), test=held_out, **QUICK)
    assert objective.prepare().rows.test is not None
