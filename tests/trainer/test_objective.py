"""A trial with a user's own trainer, from the space to what is left behind."""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
import pickle
import random
from typing import Any

import datasets
import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.trial import FixedTrial
from optuna.trial import TrialState
import pytest
import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.study.outcome import outcome_of
from optuna_llmbo.study.outcome import TrialCrashed
from optuna_llmbo.study.time_limits import SearchTimedOut
from optuna_llmbo.trainer import Configuration
from optuna_llmbo.trainer import TrainerJob
from optuna_llmbo.trainer import TrainerObjective
from tests.trainer.conftest import sft
from tests.trainer.conftest import SPACE
from tests.trainer.test_snapshot import assert_same
from tests.trainer.test_snapshot import seen


Make = Callable[..., TrainerObjective]

GOOD = {"rank": 4, "learning_rate": 3e-2, "batch_size": 4}


def search(objective: TrainerObjective, n: int = 2, **more: Any) -> optuna.Study:
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(sampler=sampler, pruner=optuna.pruners.NopPruner(), **more)
    if objective.default_params is not None:
        study.enqueue_trial(objective.default_params or {})
    study.optimize(objective, n_trials=n, catch=(TrialCrashed,))
    return study


def test_a_search(make_objective: Make) -> None:
    objective = make_objective(measure_base=True, defaults={"learning_rate": 1e-2, "rank": 2})
    study, base = search(objective), objective.base_loss
    assert base is not None
    control, other = study.trials
    assert control.params == objective.default_params == {
        "rank": 2, "learning_rate": 1e-2, "batch_size": 6,
    }  # fmt: skip
    for trial in study.trials:
        assert trial.state == TrialState.COMPLETE
        assert list(trial.intermediate_values) == [50, 100]
        assert trial.value == trial.intermediate_values[100]
        facts = trial.user_attrs
        assert facts["examples"] == 18 and facts["fraction"] == 0.5 and facts["tokens"] > 18
        assert facts["steps"] == -(-18 // trial.params["batch_size"])
        assert facts["base_loss"] == base
        assert trial.value is not None and control.value is not None
        assert facts["gain_over_base"] == pytest.approx(base - trial.value)
        assert facts["default_loss"] == control.value
        assert facts["gain_over_default"] == pytest.approx(control.value - trial.value)
        configuration = objective.configuration_of(trial)
        assert configuration.recipe.learning_rate == trial.params["learning_rate"]
        assert configuration.recipe.rank == trial.params["rank"]
    assert control.user_attrs["is_default"] and not other.user_attrs["is_default"]
    assert control.value is not None and control.value < base  # it learns
    assert objective.context == {"method": "lora", "steps": 3, "parameters": 26848}
    assert study.user_attrs["llmbo:context"] == objective.context


def test_a_trial_is_its_configuration_and_its_seed(make_objective: Make) -> None:
    value = make_objective()(FixedTrial(GOOD))
    assert make_objective()(FixedTrial(GOOD)) == value
    assert make_objective(seed=1)(FixedTrial(GOOD)) != value
    assert make_objective()(FixedTrial({**GOOD, "rank": 5})) != value


def test_what_a_job_has(make_objective: Make) -> None:
    jobs: list[TrainerJob] = []

    def make(job: TrainerJob) -> Any:
        jobs.append(job)
        assert Path(job.folder).is_dir()
        return sft(job)

    objective = make_objective(make, at_once=2)
    trial = FixedTrial(GOOD)
    objective(trial)
    (job,) = jobs
    assert job.trial is trial and job.seed == 0 and not Path(job.folder).exists()
    assert len(job.train) == 18 and len(job.validation) == 4
    assert job.recipe.batch_size == 4 and job.recipe.learning_rate == 3e-2


def test_the_base_is_what_it_was(make_objective: Make) -> None:
    """After trials that end well, are pruned, cannot be trained, or crash."""

    def make(job: TrainerJob) -> Any:
        trainer = sft(job)
        if job.recipe.rank == 8:
            raise ZeroDivisionError
        if job.recipe.rank == 7:
            trainer.training_step = _lacks_memory
        return trainer

    objective = make_objective(make)
    model, tokenizer = objective.prepare().base.there
    before, words = seen(model), json.dumps(tokenizer.init_kwargs, default=str)
    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(lower=1e9))
    for rank in (4, 7, 8):
        study.enqueue_trial({**GOOD, "rank": rank})
    study.optimize(objective, n_trials=3, catch=(TrialCrashed,))
    assert [outcome_of(trial) for trial in study.trials] == ["pruned", "infeasible", "failed"]
    assert objective.prepare().base.there[0] is model
    assert_same(seen(model), before)
    assert json.dumps(tokenizer.init_kwargs, default=str) == words
    assert "out of memory with 4 examples" in study.trials[1].user_attrs["pruned_reason"]
    failed = study.trials[2].user_attrs
    assert failed["failed_reason"].startswith("ZeroDivisionError")
    assert "raise ZeroDivisionError" in failed["traceback"]


def _lacks_memory(*args: Any, **kwargs: Any) -> Any:
    raise torch.OutOfMemoryError


def test_the_caller_draws_as_if_nothing_had_happened(make_objective: Make) -> None:
    def drawn() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    def seeded() -> None:
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)

    seeded()
    expected = drawn()
    objective = make_objective()
    objective.prepare()
    seeded()
    objective(FixedTrial(GOOD))
    assert drawn() == expected


def test_the_control_is_not_pruned(make_objective: Make) -> None:
    objective = make_objective()
    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(lower=1e9))
    study.enqueue_trial(objective.default_params or {})
    study.enqueue_trial(GOOD)
    study.optimize(objective, n_trials=2)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.PRUNED]


def test_hyperparameters_beyond_a_recipe(make_objective: Make) -> None:
    values: list[Any] = []

    def make(job: TrainerJob) -> Any:
        values.append(dict(job.extra))
        return sft(job, max_grad_norm=job.extra["max_grad_norm"])

    space = {**SPACE, "max_grad_norm": FloatDistribution(0.1, 2.0)}
    objective = make_objective(make, space, extra={"max_grad_norm": 1.0, "style": "plain"})
    assert objective.default_params is not None
    assert objective.default_params["max_grad_norm"] == 1.0
    study = search(objective)
    for trial, value in zip(study.trials, values, strict=True):
        assert value == {"max_grad_norm": trial.params["max_grad_norm"], "style": "plain"}
        assert trial.user_attrs["extra_hyperparameters"] == value
        assert objective.configuration_of(trial).extra == value
    assert study.trials[0].user_attrs["is_default"]


def test_a_function_as_space(make_objective: Make) -> None:
    def space(trial: Any) -> dict[str, Any]:
        kind = trial.suggest_categorical("kind", ["a", "b"])
        rank = 2 if kind == "a" else trial.suggest_int("rank", 2, 4)
        return {"kind": kind, "rank": rank, "batch_size": 4, "learning_rate": 1e-2}

    objective = make_objective(space=space, extra={"kind": "b"})
    assert objective.default_params == {"kind": "b", "rank": 4}
    trial = FixedTrial({"kind": "a"})
    objective(trial)
    assert trial.user_attrs["recipe"]["rank"] == 2
    assert trial.user_attrs["extra_hyperparameters"] == {"kind": "a"}


def test_a_function_of_unknown_parameters_has_no_control(make_objective: Make) -> None:
    def space(trial: Any) -> dict[str, Any]:
        return {"rank": 2 ** trial.suggest_int("power", 0, 3), "batch_size": 4}

    objective = make_objective(space=space)
    assert objective.default_params is None
    assert objective(FixedTrial({"power": 1})) > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"rnak": SPACE["rank"]}}, r"Did you mean 'rank'\? .*extra=\{'rnak': \.\.\.\}"),
        ({"space": {"beta": FloatDistribution(0, 1)}}, "declare it with its default value"),
        ({"extra": {"lr": 1e-3}}, "a hyperparameter of a recipe; give its default in defaults="),
        ({"extra": {"model": object()}}, "expected a plain value"),
        ({"space": {"batch_size": CategoricalDistribution([99])}}, "admits a batch of 99"),
        ({"space": 3}, "expected a dict of optuna.distributions"),
        ({"direction": "down"}, "direction must be one of minimize, maximize"),
        ({"make_trainer": None}, "expected a function from a TrainerJob to a Trainer"),
        ({"proxy_by": "kmeans"}, "have no embeddings here"),
        ({"proxy_by": "topic"}, "there is no such column"),
        ({"reports": 0}, "reports=0"),
    ],
)
def test_mistakes_are_said_before_the_first_trial(
    changes: dict[str, Any], message: str, make_objective: Make
) -> None:
    with pytest.raises(InputError, match=message):
        make_objective(**changes).prepare()


def test_no_such_metric_is_said_before_the_first_trial(make_objective: Make) -> None:
    with pytest.raises(InputError, match="metric='eval_f1': .* It returned .*eval_loss"):
        make_objective(metric="eval_f1", measure_base=True).prepare()


def test_no_trainer(make_objective: Make) -> None:
    with pytest.raises(InputError, match="make_trainer returned None: expected a Trainer"):
        make_objective(lambda job: None)(FixedTrial(GOOD))


def test_nothing_to_evaluate(make_objective: Make) -> None:
    def make(job: TrainerJob) -> Any:
        trainer = sft(job)
        trainer.eval_dataset = None
        return trainer

    with pytest.raises(InputError, match="nothing to evaluate"):
        make_objective(make)(FixedTrial(GOOD))


def test_several_devices(make_objective: Make) -> None:
    def make(job: TrainerJob) -> Any:
        trainer = sft(job)
        trainer.args._n_gpu = 4  # as with four in sight
        return trainer

    with pytest.raises(InputError, match="4 devices at once.*CUDA_VISIBLE_DEVICES=0"):
        make_objective(make)(FixedTrial(GOOD))


def test_a_study_is_of_one_objective(
    make_objective: Make, chat_llm: Path, rows: datasets.Dataset
) -> None:
    study = search(make_objective(settings={"max_length": 64}), n=1)
    make_objective(settings={"max_length": 64}).check_study(study)
    for changes in ({"settings": {"max_length": 65}}, {"seed": 1}, {"metric": "eval_runtime"}):
        other = make_objective(**{"settings": {"max_length": 64}, **changes})
        with pytest.raises(InputError, match="results of another objective.*use another study"):
            other.check_study(study)
    pairs = rows.rename_column("completion", "response")
    lora = LoRAObjective(chat_llm, pairs, proxy=0.5, device="cpu", dtype=torch.float32)
    with pytest.raises(InputError, match="results of another objective"):
        lora.check_study(study)
    with pytest.raises(InputError, match='create the study with direction="minimize"'):
        make_objective().check_study(optuna.create_study(direction="maximize"))


def test_a_metric_to_maximize(make_objective: Make) -> None:
    objective = make_objective(metric="eval_mean_token_accuracy", direction="maximize")
    study = search(objective, direction="maximize")
    assert 0 <= study.best_value <= 1
    assert "gain_over_base" not in study.trials[0].user_attrs
    assert objective.goals[0].direction == "maximize"


def test_the_best_adapters_are_kept(make_objective: Make, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    objective = make_objective(folder=tmp_path / "runs", reports=1)
    study = optuna.create_study()
    for rate in (1e-4, 3e-2, 2e-4):
        study.enqueue_trial({**GOOD, "learning_rate": rate})
    study.optimize(objective, n_trials=3)
    assert study.best_trial.number == 1
    kept = tmp_path / "runs" / "trial-1" / "adapter"
    assert study.best_trial.user_attrs["adapter"] == str(kept)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["trial-1"]
    assert (kept / "README.md").read_text().startswith("---\nbase_model:")
    model = AutoPeftModelForCausalLM.from_pretrained(kept)
    tokenizer = AutoTokenizer.from_pretrained(kept)
    assert tokenizer.chat_template
    assert _loss(model, tokenizer, objective) == pytest.approx(study.best_value, abs=1e-4)


def _loss(model: Any, tokenizer: Any, objective: TrainerObjective) -> float:
    """The validation loss as the trainer has it, of a model that was loaded from its folder."""
    import transformers

    def evaluate(job: TrainerJob) -> Any:
        trainer = sft(job)
        return transformers.Trainer(
            model, trainer.args, trainer.data_collator, eval_dataset=trainer.eval_dataset
        ).evaluate()

    out: dict[str, float] = {}
    with objective._job(Configuration(objective.prepare().space.defaults.recipe), None, None, 0, None) as job:  # fmt: skip  # noqa: E501
        out = evaluate(job)
    return out["eval_loss"]


def test_a_score_on_rows_that_no_trial_has_read(make_objective: Make) -> None:
    objective = make_objective(test=8, proxy=0.9)
    parts = objective.prepare().rows
    assert parts.test is not None and len(parts.test) == 8
    held_out = {row["prompt"] for part in (parts.test, parts.validation) for row in part}
    assert len(held_out) == 8 + len(parts.validation)
    assert not held_out & {row["prompt"] for row in parts.pool}
    configuration = objective.prepare().space.configuration(GOOD)
    on_test = objective.score(configuration)
    assert on_test != objective.score(configuration, on=parts.validation)
    assert on_test == objective.score(configuration, on=parts.test, train=parts.train, seed=0)
    with pytest.raises(InputError, match="there are no test rows"):
        make_objective().score(configuration)


def test_the_model_of_a_training_is_there_while_it_is_used(make_objective: Make) -> None:
    objective = make_objective()
    with objective.trained(objective.prepare().space.configuration(GOOD)) as trained:
        assert trained.trainer.evaluate()["eval_loss"] == pytest.approx(trained.value, abs=1e-6)
        assert trained.metrics["eval_loss"] == trained.value
        assert any("lora_A" in name for name, _ in trained.trainer.model.named_parameters())


def test_to_another_process(make_objective: Make) -> None:
    objective = make_objective()
    value = objective(FixedTrial(GOOD))
    copy = pickle.loads(pickle.dumps(objective))
    assert copy._prepared is None  # no model has been sent
    assert copy(FixedTrial(GOOD)) == value


def test_time_limits(make_objective: Make) -> None:
    study = search(make_objective(trial_timeout=1e-6), n=1)
    assert outcome_of(study.trials[0]) == "infeasible"
    objective = make_objective()
    objective.limits.ends_at = 0.0
    trial = FixedTrial(GOOD)
    with pytest.raises(SearchTimedOut):
        objective(trial)
    assert trial.user_attrs["interrupted"]


def test_a_trainer_with_a_model_of_its_own(make_objective: Make, chat_llm: Path) -> None:
    """Nothing is shared; a plain Trainer."""
    from tests.trainer.conftest import tiny_model

    def make(job: TrainerJob) -> Any:
        import peft
        import transformers

        model, tokenizer = tiny_model(chat_llm)
        with pytest.raises(InputError, match="no shared base model"):
            _ = job.model

        def encode(row: dict[str, Any]) -> dict[str, Any]:
            ids = tokenizer(row["prompt"] + row["completion"]).input_ids
            return {"input_ids": ids, "labels": ids}

        parts = [part.map(encode, remove_columns=part.column_names) for part in (job.train, job.validation)]  # fmt: skip  # noqa: E501
        return transformers.Trainer(
            peft.get_peft_model(model, job.lora_config()),
            job.training_arguments(use_cpu=True),
            transformers.DataCollatorForSeq2Seq(tokenizer),
            train_dataset=parts[0],
            eval_dataset=parts[1],
        )

    objective = make_objective(make, model=None, measure_base=True)
    assert objective(FixedTrial(GOOD)) < objective.base_loss  # type: ignore[operator]
    assert objective.context == {"method": "lora", "steps": 3}
