"""What a callback makes of a Trainer's run."""

from __future__ import annotations

from collections.abc import Callable
import copy
import math
from pathlib import Path
import time
from typing import Any

import datasets
import optuna
import pytest
import torch
import transformers

from optuna_llmbo.errors import InputError
from optuna_llmbo.study.outcome import outcome_of
from optuna_llmbo.study.time_limits import SearchTimedOut
from optuna_llmbo.study.time_limits import TimeLimits
from optuna_llmbo.study.training_progress import TrainingProgress
from optuna_llmbo.trainer import TrialCallback
from tests.trainer.conftest import tiny_model


MakeTrainer = Callable[..., transformers.Trainer]


class Watcher(transformers.TrainerCallback):
    """Counts what happens."""

    def __init__(self) -> None:
        self.evaluated_at: list[int] = []
        self.saved, self.ended = 0, 0

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.evaluated_at.append(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saved += 1

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ended += 1


class Pruner(optuna.pruners.BasePruner):
    """Prunes from some step on."""

    def __init__(self, step: int) -> None:
        self.step = step

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return trial.last_step is not None and trial.last_step >= self.step


@pytest.fixture
def make_trainer(chat_llm: Path, tmp_path: Path) -> MakeTrainer:
    """Makes Trainers of all weights: 24 rows, which are 6 steps of 4 an epoch."""
    model, tokenizer = tiny_model(chat_llm)

    def encode(i: int) -> dict[str, Any]:
        ids = tokenizer(f"count {i % 10} on").input_ids
        return {"input_ids": ids, "labels": ids, "attention_mask": [1] * len(ids)}

    data = datasets.Dataset.from_list([encode(i) for i in range(32)])

    held_out = data.select(range(24, 32))

    def make(eval_dataset: Any = held_out, **arguments: Any) -> Any:
        values: dict[str, Any] = {
            "output_dir": str(tmp_path / "out"),
            "per_device_train_batch_size": 4,
            "num_train_epochs": 1,
            "eval_strategy": "steps",
            "eval_steps": 2,
            "save_strategy": "no",
            "logging_steps": 1,
            "report_to": "none",
            "use_cpu": True,
            "disable_tqdm": True,
            **arguments,
        }
        trainer = transformers.Trainer(
            copy.deepcopy(model).requires_grad_(True),
            transformers.TrainingArguments(**values),
            train_dataset=data.select(range(24)),
            eval_dataset=eval_dataset,
        )
        trainer.remove_callback(transformers.PrinterCallback)
        return trainer

    return make


def run(
    trainer: transformers.Trainer,
    pruner: optuna.pruners.BasePruner | None = None,
    **arguments: Any,
) -> optuna.trial.FrozenTrial:
    """One trial of a study, with the callback as documented."""

    def objective(trial: optuna.Trial) -> float:
        callback = TrialCallback(trial, **arguments)
        trainer.add_callback(callback)
        with callback:
            trainer.train()
        return callback.value

    study = optuna.create_study(pruner=pruner or optuna.pruners.NopPruner())
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    return trial


def losses(trainer: transformers.Trainer) -> list[float]:
    return [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]


def test_each_evaluation_is_reported_at_the_percentage_done(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trial = run(trainer)
    assert list(trial.intermediate_values) == [33, 67, 100]
    assert list(trial.intermediate_values.values()) == losses(trainer)
    assert trial.value == losses(trainer)[-1] < losses(trainer)[0]
    assert not trainer.is_in_train


def test_the_end_is_reported_where_it_is_not_a_multiple(make_trainer: MakeTrainer) -> None:
    trial = run(make_trainer(eval_steps=4))
    assert list(trial.intermediate_values) == [67, 100]


def test_many_evaluations_share_a_percentage(make_trainer: MakeTrainer) -> None:
    """Only the last step is at 100%, and of the others the first at a percentage is reported."""
    trainer = make_trainer(eval_steps=1, max_steps=210)
    trial = run(trainer)
    assert len(losses(trainer)) == 210
    assert set(trial.intermediate_values) <= set(range(101))
    assert trial.intermediate_values[100] == losses(trainer)[-1] == trial.value
    assert trial.intermediate_values[50] == losses(trainer)[int(0.495 * 210)]


@pytest.mark.parametrize("strategy", ["no", "epoch", "steps"])
def test_evenly_spaced_reports(strategy: str, make_trainer: MakeTrainer) -> None:
    """Whatever the Trainer's own schedule is; no evaluation is made twice."""
    trainer, watcher = make_trainer(eval_strategy=strategy, eval_steps=5, max_steps=8), Watcher()
    trainer.add_callback(watcher)
    trial = run(trainer, reports=4)
    assert list(trial.intermediate_values) == [25, 50, 75, 100]
    # an epoch has 6 steps; its end and step 5 are the Trainer's own points
    own = {"no": [], "epoch": [], "steps": [5]}[strategy]
    assert watcher.evaluated_at == sorted([2, 4, 6, 8, *own])
    assert trial.value == losses(trainer)[-1]


def test_fewer_steps_than_reports(make_trainer: MakeTrainer) -> None:
    trial = run(make_trainer(max_steps=2, eval_strategy="no"), reports=4)
    assert list(trial.intermediate_values) == [50, 100]


def test_before_the_first_step(make_trainer: MakeTrainer) -> None:
    """The loss of the base is recorded and not reported."""
    trainer = make_trainer(eval_on_start=True)
    trial = run(trainer)
    assert trial.user_attrs["base_loss"] == losses(trainer)[0]
    assert list(trial.intermediate_values) == [33, 67, 100]


def test_pruned(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """The run ends in the Trainer's own way: other callbacks see its end, nothing is saved."""
    trainer, watcher = make_trainer(eval_strategy="epoch", save_strategy="epoch"), Watcher()
    trainer.add_callback(watcher)
    trial = run(trainer, Pruner(50), reports=6)
    assert trial.state == optuna.trial.TrialState.PRUNED and outcome_of(trial) == "pruned"
    assert list(trial.intermediate_values) == [17, 33, 50]
    assert trial.user_attrs["pruned_reason"] == "by the pruner at 50%"
    assert trial.user_attrs["steps"] == 3 == watcher.evaluated_at[-1]
    assert watcher.ended == 1 and watcher.saved == 0
    assert not list((tmp_path / "out").glob("checkpoint-*"))


@pytest.mark.parametrize("changes", [{"prune": False}, {}])
def test_not_pruned(changes: dict[str, Any], make_trainer: MakeTrainer) -> None:
    """A control is not; nor is anything at its end."""
    pruner = Pruner(0) if changes else Pruner(100)
    assert run(make_trainer(), pruner, **changes).state == optuna.trial.TrialState.COMPLETE


def test_a_pruner_that_fails_does_not_prune(make_trainer: MakeTrainer) -> None:
    class Broken(optuna.pruners.BasePruner):
        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            raise ZeroDivisionError

    assert run(make_trainer(), Broken()).state == optuna.trial.TrialState.COMPLETE


@pytest.mark.parametrize("filtered", [False, True])
def test_diverged(filtered: bool, make_trainer: MakeTrainer) -> None:
    """Also where the Trainer replaces losses that are not finite in its log."""
    trainer = make_trainer(learning_rate=1e30, logging_nan_inf_filter=filtered, max_grad_norm=0)
    trial = run(trainer)
    assert outcome_of(trial) == "infeasible"
    assert "nan" in trial.user_attrs["pruned_reason"]
    assert 0 < trial.user_attrs["steps"] < 6


def test_a_metric_that_is_not_finite(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trainer.compute_metrics = lambda _: {"score": math.inf}
    trial = run(trainer, metric="eval_score")
    assert outcome_of(trial) == "infeasible" and trial.user_attrs["steps"] == 2
    assert trial.user_attrs["pruned_reason"] == "eval_score is inf at 33%"


def test_out_of_memory(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    held = []

    def lacking(*args: Any, **kwargs: Any) -> Any:
        held.append(torch.zeros(3))
        raise torch.OutOfMemoryError("CUDA out of memory")

    trainer.training_step = lacking
    trial = run(trainer)
    assert outcome_of(trial) == "infeasible"
    assert trial.user_attrs["pruned_reason"] == "out of memory with 4 examples at once on a device"
    assert trial.user_attrs["steps"] == 0 and trial.user_attrs["examples"] == 24


def test_another_error_is_no_lack_of_memory(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("shapes cannot be multiplied")

    trainer.training_step = broken
    with pytest.raises(RuntimeError, match="shapes"):
        run(trainer)


def test_facts(make_trainer: MakeTrainer) -> None:
    trial = run(make_trainer(include_num_input_tokens_seen="non_padding"))
    facts = trial.user_attrs
    assert facts["steps"] == 6 and facts["examples"] == 24 and facts["tokens"] == 24 * 10
    assert facts["seconds"] > 0 and facts["peak_memory_bytes"] > 1e6
    assert "tokens" not in run(make_trainer()).user_attrs  # not counted by the Trainer


def test_no_such_metric(make_trainer: MakeTrainer) -> None:
    with pytest.raises(InputError, match=r"metric='eval_los'.* Did you mean 'eval_loss'\?"):
        run(make_trainer(), metric="eval_los")
    with pytest.raises(InputError, match="metric='eval_f1'.* It returned epoch, eval_loss, "):
        run(make_trainer(eval_steps=6), metric="eval_f1")  # at the end of the run


def test_several_data_sets(make_trainer: MakeTrainer) -> None:
    """The metric of one of them, whichever is evaluated first."""
    plain = make_trainer()
    parts = {"a": plain.eval_dataset, "b": plain.eval_dataset}
    for metric in ("eval_a_loss", "eval_b_loss"):
        trial = run(make_trainer(eval_dataset=parts), metric=metric)
        assert list(trial.intermediate_values) == [33, 67, 100]
    with pytest.raises(InputError, match="It returned .*eval_a_loss.*eval_b_loss"):
        run(make_trainer(eval_dataset=parts))


def test_nothing_is_evaluated(make_trainer: MakeTrainer) -> None:
    with pytest.raises(InputError, match='eval_strategy="no"'):
        run(make_trainer(eval_strategy="no"))


def test_no_value_without_an_evaluation() -> None:
    callback = TrialCallback(optuna.trial.FixedTrial({}))
    with pytest.raises(InputError, match="no evaluation has returned 'eval_loss' yet"):
        _ = callback.value


@pytest.mark.parametrize("reports", [0, 101, 2.5])
def test_bad_number_of_reports(reports: Any) -> None:
    with pytest.raises(InputError, match="reports="):
        TrialCallback(optuna.trial.FixedTrial({}), reports=reports)


def test_evaluations_after_the_training_are_not_reported(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()

    def objective(trial: optuna.Trial) -> float:
        callback = TrialCallback(trial)
        trainer.add_callback(callback)
        with callback:
            trainer.train()
            trainer.evaluate(metric_key_prefix="test")
        return callback.value

    study = optuna.create_study()
    study.optimize(objective, n_trials=1)
    assert list(study.trials[0].intermediate_values) == [33, 67, 100]


def test_the_best_model_counts_where_it_is_loaded(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(
        learning_rate=0.3,  # too high: the loss goes up and down
        lr_scheduler_type="constant",
        max_steps=4,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
    )
    trial = run(trainer)
    assert trial.value == min(losses(trainer)) < losses(trainer)[-1]


def test_progress(make_trainer: MakeTrainer) -> None:
    told: list[TrainingProgress] = []
    run(make_trainer(), progress=told.append)
    assert [one.fraction for one in told] == [pytest.approx(i / 6) for i in range(1, 7)]
    assert told[0].loss is None and told[1].loss == pytest.approx(6, abs=2)

    def broken(_: TrainingProgress) -> None:
        raise ZeroDivisionError

    assert run(make_trainer(), progress=broken).state == optuna.trial.TrialState.COMPLETE


def test_time_limits(make_trainer: MakeTrainer) -> None:
    trial = run(make_trainer(), limits=TimeLimits(trial_seconds=1e-6))
    assert outcome_of(trial) == "infeasible" and trial.user_attrs["steps"] == 1
    with pytest.raises(SearchTimedOut):
        run(make_trainer(), limits=TimeLimits(ends_at=time.monotonic()))


def test_the_user_may_do_without_the_context(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()

    def objective(trial: optuna.Trial) -> float:
        callback = TrialCallback(trial)
        trainer.add_callback(callback)
        trainer.train()
        return callback.value

    study = optuna.create_study(pruner=Pruner(60))
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert outcome_of(trial) == "pruned" and trial.user_attrs["steps"] == 4
