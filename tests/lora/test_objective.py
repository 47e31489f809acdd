from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import datetime
import json
from pathlib import Path
import threading
from typing import Any

import datasets
import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import FixedTrial
from optuna.trial import TrialState
import pytest
import torch
from transformers.utils import chat_template_utils

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.lora import objective as objectives
from optuna_llmbo.lora import prepare
from optuna_llmbo.lora import recipe as recipes
from optuna_llmbo.lora import train
from optuna_llmbo.lora import TrainingProgress
from optuna_llmbo.lora.tokens import Example
from optuna_llmbo.study.trial_attributes import CONTEXT
from tests.lora.conftest import rows
from tests.tiny import make_tiny_family
from tests.tiny import make_tiny_llm


Make = Callable[..., LoRAObjective]

ALWAYS = {
    "seconds",
    "steps",
    "tokens",
    "examples",
    "fraction",
    "dropped_examples",
    "peak_memory_bytes",
    "base_loss",
    "is_default",
    "recipe",
}
SMALL: dict[str, Any] = {
    "rank": IntDistribution(1, 8, log=True),
    "batch_size": IntDistribution(3, 6),
    "learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
}


class Stopper(optuna.pruners.BasePruner):
    """Prunes whatever it may."""

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return True


def make_study(**options: Any) -> optuna.Study:
    options.setdefault("sampler", optuna.samplers.RandomSampler(seed=0))
    return optuna.create_study(direction="minimize", **options)


# --- what a trial returns, reports and records ---


def test_a_trial_trains_and_records(make_objective: Make) -> None:
    objective = make_objective()
    study = make_study()
    study.enqueue_trial({**objective.default_params, "learning_rate": 5e-3})
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert trial.value is not None
    assert trial.value < objective.base_loss
    assert set(trial.user_attrs) == ALWAYS | {"gain_over_base"}
    assert trial.user_attrs["gain_over_base"] == objective.base_loss - trial.value
    assert trial.user_attrs["base_loss"] == objective.base_loss
    assert trial.user_attrs["examples"] == 27
    assert trial.user_attrs["fraction"] == 0.5
    assert trial.user_attrs["steps"] == 27 // trial.params["batch_size"]
    assert trial.user_attrs["dropped_examples"] == 27 % trial.params["batch_size"]
    assert trial.user_attrs["tokens"] > 27 * 15
    assert trial.user_attrs["seconds"] > 0
    assert trial.user_attrs["peak_memory_bytes"] > 1e6
    assert trial.user_attrs["is_default"] is False


def test_trials_are_reproducible_and_independent(make_objective: Make) -> None:
    first, other = make_objective(), make_objective(seed=1)
    params = first.default_params
    loss = first(FixedTrial(params))
    first(FixedTrial({**params, "rank": 3}))
    assert first(FixedTrial(params)) == loss
    assert other(FixedTrial(params)) != loss


def test_micro_batches_change_nothing_but_rounding(make_objective: Make) -> None:
    losses = []
    for size in (1, 3, 100):
        objective = make_objective(micro_batch_size=size)
        losses.append(objective(FixedTrial({**objective.default_params, "lora_dropout": 0.0})))
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)


@pytest.mark.parametrize(
    ("reports", "batch_size", "expected"),
    [
        (4, 3, [25, 50, 75, 100]),  # 9 steps
        (3, 3, [33, 67, 100]),
        (1, 3, [100]),
        (4, 9, [25, 50, 100]),  # 3 steps: at 33%, 67% and 100%
        (4, 27, [100]),  # one step passes all points
        (100, 9, [33, 66, 100]),
    ],
)
def test_reports_are_percentages(
    make_objective: Make, reports: int, batch_size: int, expected: list[int]
) -> None:
    study = make_study()
    objective = make_objective(reports=reports, space={"batch_size": IntDistribution(1, 27)})
    study.enqueue_trial({"batch_size": batch_size})
    study.optimize(objective, n_trials=1)
    values = study.trials[0].intermediate_values
    assert list(values) == expected
    assert values[100] == study.trials[0].value


def test_progress_is_told_of_every_step(make_objective: Make) -> None:
    seen: list[TrainingProgress] = []
    objective = make_objective(space={"batch_size": IntDistribution(6, 6)}, progress=seen.append)
    make_study().optimize(objective, n_trials=2)
    assert [p.trial_number for p in seen] == [0] * 4 + [1] * 4
    assert [p.fraction for p in seen] == [0.25, 0.5, 0.75, 1.0] * 2
    assert all(0 < (p.loss or 0.0) < 20 for p in seen)


def test_the_default_is_the_control(make_objective: Make) -> None:
    objective = make_objective(space=SMALL)
    study = make_study(pruner=Stopper())
    early = {"rank": 2, "batch_size": 3, "learning_rate": 1e-3}
    study.enqueue_trial(early)
    study.enqueue_trial(objective.default_params)
    study.optimize(objective, n_trials=2)
    stopped, default = study.trials
    assert stopped.state is TrialState.PRUNED
    assert stopped.user_attrs["pruned_reason"] == "by the pruner at 25%"
    assert set(stopped.user_attrs) == ALWAYS | {"pruned_reason"}
    assert default.state is TrialState.COMPLETE
    assert default.user_attrs["is_default"] is True
    assert default.user_attrs["default_loss"] == default.value
    assert default.user_attrs["gain_over_default"] == 0.0
    study.pruner = optuna.pruners.NopPruner()
    study.optimize(objective, n_trials=1)
    last = study.trials[-1]
    assert last.user_attrs["default_loss"] == default.value
    assert last.user_attrs["gain_over_default"] == default.value - last.value  # type: ignore[operator]


def test_default_params_where_a_function_has_its_own(make_objective: Make) -> None:
    objective = make_objective(
        space=lambda trial: {"rank": 2 ** trial.suggest_int("log_rank", 0, 3), "batch_size": 4}
    )
    with pytest.raises(InputError, match="default configuration cannot be written in them"):
        _ = objective.default_params
    study = make_study()
    study.optimize(objective, n_trials=1)
    assert study.trials[0].user_attrs["is_default"] is False


def test_default_space_is_sized_by_the_proxy(make_objective: Make) -> None:
    objective = make_objective()
    assert objective.prepare().space.distributions == recipes.default_space(27)
    assert objective.default_params["batch_size"] == 6


# --- ends other than completion ---


@pytest.mark.parametrize("where", ["training", "validation"])
def test_a_run_that_diverges_is_pruned(
    make_objective: Make, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    objective = make_objective(space={"batch_size": IntDistribution(6, 6)})
    objective.prepare()
    if where == "training":
        monkeypatch.setattr(train, "accumulate_gradients", lambda *_: float("nan"))
    else:
        monkeypatch.setattr(prepare, "validation_loss", lambda *_, **__: float("inf"))
    study = make_study()
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert trial.state is TrialState.PRUNED
    assert trial.intermediate_values == {}
    assert "loss is" in trial.user_attrs["pruned_reason"]
    assert trial.user_attrs["examples"] == 27


def test_a_real_divergence(make_objective: Make) -> None:
    space = {"alpha": FloatDistribution(1e37, 1e38), "batch_size": IntDistribution(3, 3)}
    study = make_study()
    objective = make_objective(space=space)
    study.optimize(objective, n_trials=1)
    assert study.trials[0].state is TrialState.PRUNED
    assert "norm" in study.trials[0].user_attrs["pruned_reason"]


@pytest.mark.long
def test_lack_of_gpu_memory_is_a_result(
    make_objective: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: Any) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    objective = make_objective()
    objective.prepare()
    monkeypatch.setattr(train, "accumulate_gradients", exhausted)
    study = make_study()
    study.optimize(objective, n_trials=2)
    assert [t.state for t in study.trials] == [TrialState.PRUNED] * 2
    assert study.trials[0].user_attrs["pruned_reason"] == "out of memory with one example at once"


def test_an_interrupt_is_recorded_and_passed_on(make_objective: Make) -> None:
    def interrupt(progress: TrainingProgress) -> None:
        raise KeyboardInterrupt

    objective = make_objective(progress=interrupt)
    study = make_study()
    with pytest.raises(KeyboardInterrupt):
        study.optimize(objective, n_trials=1)
    assert study.trials[0].user_attrs["interrupted"] is True
    assert study.trials[0].user_attrs["steps"] == 1
    objective.progress = None
    assert objective(FixedTrial(objective.default_params)) == make_objective()(
        FixedTrial(objective.default_params)
    )


# --- the study ---


def test_the_study_is_told_the_context(make_objective: Make) -> None:
    objective = make_objective(epochs=3, defaults={"batch_size": 5})
    n_parameters = sum(p.numel() for p in objective.prepare().model.parameters())
    context = {"method": "lora", "parameters": n_parameters, "steps": 3 * 27 // 5}
    assert objective.context == context
    sampler = LLMBOSampler(seed=0)
    study = make_study(sampler=sampler)
    objective.check_study(study)
    assert study.user_attrs[CONTEXT] == context
    knowledge = sampler._engine.knowledge(study)
    assert knowledge.context.known == context
    typical = knowledge.relevant(["rank", "learning_rate"]).typical_range("learning_rate")
    assert typical == (3e-4, 1.5e-3)  # of a small model in a short run

    study.set_user_attr(CONTEXT, {"method": "lora"})  # what is there stays
    objective.check_study(study)
    assert study.user_attrs[CONTEXT] == {"method": "lora"}


def test_a_default_batch_beyond_the_data_says_nothing_of_the_steps(make_objective: Make) -> None:
    def space(trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        return {"batch_size": 2 * trial.suggest_int("half", 1, 4)}

    context = make_objective(space=space, defaults={"batch_size": 64}).context
    assert set(context) == {"method", "parameters"}


def test_the_study_is_marked_and_checked(make_objective: Make, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'lora.db'}"
    study = make_study(study_name="counting", storage=storage)
    study.optimize(make_objective(space=SMALL), n_trials=2)
    objective = make_objective(space=SMALL)
    assert study.user_attrs["lora_objective"] == objective.fingerprint

    resumed = optuna.load_study(study_name="counting", storage=storage)
    resumed.optimize(objective, n_trials=1)
    assert len(resumed.trials) == 3

    other = make_objective(space=SMALL, variant="rslora", proxy=0.25)
    message = (
        r"the study 'counting' .* differs in proxy \(0.5, now 0.25\), train_examples \(27, now 14"
        r"\), train_hash .* variant \('lora', now 'rslora'\).* use another study name"
    )
    with pytest.raises(InputError, match=message):
        resumed.optimize(other, n_trials=1)


def test_a_study_goes_on_wherever_its_files_lie(
    make_objective: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = tmp_path / "before", tmp_path / "after [2]" / "more"
    model = make_tiny_llm(before / "model")
    lines = [json.dumps(row) + "\n" for row in rows(40)]
    (before / "train.jsonl").write_text("".join(lines))
    study = make_study()
    study.optimize(make_objective(space=SMALL, train=before / "train.jsonl", model=model), 1)
    after.mkdir(parents=True)
    (before / "train.jsonl").rename(after / "renamed.jsonl")
    model.rename(after / "renamed")
    monkeypatch.chdir(after)
    moved = make_objective(space=SMALL, train="renamed.jsonl", model="./renamed")
    study.optimize(moved, n_trials=1)
    assert len(study.trials) == 2
    (after / "renamed.jsonl").write_text("".join(lines[:-1]))
    other = make_objective(space=SMALL, train="renamed.jsonl", model="./renamed")
    with pytest.raises(InputError, match=r"differs in model \('model', now 'renamed'\), .*train_"):
        study.optimize(other, n_trials=1)


def test_a_study_goes_on_the_next_day(
    make_objective: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Templates that write the date ask a clock for it, here one that stands still."""
    model = make_tiny_llm(tmp_path / "model", chat=True)
    template = model / "chat_template.jinja"
    template.write_text("{{ strftime_now('%d %b %Y') }} " + template.read_text())
    study, seen = make_study(), []
    for day in (1, 2):

        class Clock(datetime.datetime):
            @classmethod
            def now(cls, tz: Any = None, day: int = day) -> Clock:
                return cls(2031, 5, day)

        monkeypatch.setattr(chat_template_utils, "datetime", Clock)
        objective = make_objective(space=SMALL, model=model)
        tokenizer = objective.prepare().tokenizer
        turns = [{"role": "user", "content": "hi"}]
        seen.append(tokenizer.apply_chat_template(turns, tokenize=False))
        study.optimize(objective, n_trials=1)
    assert seen == ["01 May 2031 <user>hi", "02 May 2031 <user>hi"]  # the clock is asked
    assert len(study.trials) == 2
    assert study.user_attrs["lora_objective"]["template_date"] == "2024-07-26"
    assert "template_date" not in make_objective().fingerprint


def test_data_have_the_same_hashes_for_good(make_objective: Make) -> None:
    """Stored studies rest on them."""
    fingerprint = make_objective(validation=20).fingerprint
    assert fingerprint["train_hash"] == "cb4b8d2455c70594"
    assert fingerprint["validation_hash"] == "23b0ac09c06ad109"
    assert "".join(fingerprint) == (
        "modelweightstraintrain_examplestrain_hashvalidation_examplesvalidation_hash"
        "proxymetricmax_lengthseeddtypevariantepochs"
    )


def test_fingerprint_holds_what_matters(make_objective: Make) -> None:
    base = make_objective().fingerprint
    assert json.loads(json.dumps(base)) == base
    assert base["train"] == "a Dataset"
    assert make_objective(reports=2, micro_batch_size=2, space=SMALL).fingerprint == base
    changes: list[dict[str, Any]] = [
        {"seed": 1},
        {"epochs": 2},
        {"max_length": 40},
        {"variant": "dora"},
        {"validation": 5},
        {"dtype": torch.bfloat16},
        {"proxy": 0.6},
    ]
    for change in changes:
        assert make_objective(**change).fingerprint != base, change


def test_other_data_of_one_size_is_noticed(make_objective: Make) -> None:
    other = datasets.Dataset.from_list(rows(60, start=1000))
    one, two = make_objective().fingerprint, make_objective(train=other).fingerprint
    assert {name for name in one if one[name] != two[name]} == {"train_hash", "validation_hash"}


def test_other_weights_under_one_name_are_noticed(make_objective: Make, tmp_path: Path) -> None:
    one, two = (make_tiny_llm(tmp_path / str(seed) / "model", seed=seed) for seed in (0, 1))
    records = [make_objective(model=folder).fingerprint for folder in (one, two)]
    assert {name for name in records[0] if records[0][name] != records[1][name]} == {"weights"}


def test_extra_metrics_measure_the_trained_model(make_objective: Make) -> None:
    def adapters(model: Any, tokenizer: Any, examples: Sequence[Example]) -> float:
        assert tokenizer("1").input_ids and not model.training
        return len(examples) + sum("lora_B" in name for name, _ in model.named_parameters())

    study = make_study()
    study.optimize(make_objective(extra_metrics={"adapters": adapters}), n_trials=1)
    assert study.trials[0].user_attrs["metrics"]["adapters"] > 6
    study.optimize(make_objective(), n_trials=1)
    assert "metrics" not in study.trials[1].user_attrs
    with pytest.raises(InputError, match=r"extra_metrics\['bleu'\]=1: expected a function of the"):
        make_objective(extra_metrics={"bleu": 1}).prepare()


@pytest.mark.parametrize("directions", [["maximize"], ["minimize", "minimize"]])
def test_only_minimization(make_objective: Make, directions: list[str]) -> None:
    study = optuna.create_study(directions=directions)  # type: ignore[arg-type]
    with pytest.raises(InputError, match='create the study with direction="minimize"'):
        study.optimize(make_objective(), n_trials=1)


@pytest.mark.parametrize(
    "pruner",
    [
        optuna.pruners.MedianPruner(n_startup_trials=2),
        optuna.pruners.HyperbandPruner(min_resource=25, max_resource=100, reduction_factor=2),
        optuna.pruners.SuccessiveHalvingPruner(min_resource=25, reduction_factor=2),
    ],
)
def test_under_pruners(make_objective: Make, pruner: optuna.pruners.BasePruner) -> None:
    # Hyperband draws a trial's bracket from the study's name
    sampler = optuna.samplers.TPESampler(seed=0)
    study = make_study(study_name="under pruners", pruner=pruner, sampler=sampler)
    objective = make_objective(space=SMALL)
    study.enqueue_trial(objective.default_params)
    study.optimize(objective, n_trials=12)
    states = [trial.state for trial in study.trials]
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    assert all("default_loss" in trial.user_attrs for trial in complete)


def test_threads_take_turns(make_objective: Make) -> None:
    running: list[int] = []
    most: list[int] = []

    def progress(step: TrainingProgress) -> None:
        running.append(step.trial_number)
        most.append(len(set(running[-3:])) if (step.fraction or 0.0) > 0.5 else 1)

    objective = make_objective(space={**SMALL, "batch_size": IntDistribution(6, 6)})
    objective.progress = progress
    study = make_study()
    study.optimize(objective, n_trials=4, n_jobs=2)
    assert all(trial.state is TrialState.COMPLETE for trial in study.trials)
    changes = sum(a != b for a, b in zip(running, running[1:], strict=False))
    assert changes == 3  # four trials, one after the other
    for trial in study.trials:
        assert objective(FixedTrial(trial.params)) == trial.value


def test_torch_is_left_as_it_was(make_objective: Make) -> None:
    def state() -> tuple[Any, ...]:
        return (
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.random.get_rng_state().tolist(),
        )

    before = state()
    objective = make_objective()
    objective(FixedTrial(objective.default_params))
    assert state() == before


def test_loading_happens_once(make_objective: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = objectives.prepare  # type: ignore[attr-defined]
    monkeypatch.setattr(objectives, "prepare", lambda o: calls.append(o) or real(o))  # type: ignore[func-returns-value]
    objective = make_objective()
    assert not calls
    threads = [threading.Thread(target=objective.prepare) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert objective.base_loss > 0
    assert len(calls) == 1


# --- validation data and mistakes ---


def test_validation_of_its_own(make_objective: Make) -> None:
    held_out = datasets.Dataset.from_list(rows(9, start=500))
    objective = make_objective(validation=held_out)
    assert objective.fingerprint["validation_examples"] == 9
    assert objective.fingerprint["train_examples"] == 30
    assert make_objective(validation=20).fingerprint["validation_examples"] == 20


def test_fractions_to_split_off(make_objective: Make) -> None:
    objective = make_objective(validation=0.3, test=0.2)
    assert objective.fingerprint["validation_examples"] == 18
    assert objective.fingerprint["test_examples"] == 12
    counted = make_objective(validation=np.int64(18), test=12)
    assert objective.fingerprint == counted.fingerprint


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_no_column_is_left_out_in_any_part(
    make_objective: Make, part: str, dataset: datasets.Dataset
) -> None:
    parts = {"train": dataset}
    parts |= {name: datasets.Dataset.from_list(rows(20, i)) for name, i in OTHERS if name == part}
    parts[part] = parts[part].add_column("context", ["Count."] * len(parts[part]))
    with pytest.raises(InputError, match="would not be read: 'context'"):
        make_objective(**parts).prepare()
    make_objective(**parts, ignore_columns=["context"]).prepare()
    with pytest.raises(
        InputError, match="no column 'sistem'. The columns are: context, prompt, response"
    ):
        make_objective(**parts, ignore_columns=["sistem"]).prepare()


OTHERS = [("validation", 500), ("test", 700)]


def test_long_examples_are_left_out_before_the_rest(
    make_objective: Make, warnings_logged: list[str]
) -> None:
    objective = make_objective(max_length=25, validation=16, proxy=1.0)
    record = objective.fingerprint
    fitting = record["train_examples"] + record["validation_examples"]
    assert 6 < fitting < 60
    (line,) = [warning for warning in warnings_logged if "max_length" in warning]
    assert line.startswith(f"With max_length=25 tokens {60 - fitting} of 60 training examples are")
    assert "The longest has 30: raise max_length" in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "no such model"}, "no such model"),
        ({"prompt_column": "text"}, "no column 'text'. The columns are: prompt, response"),
        ({"train": "nowhere.csv"}, "there is no data file or folder 'nowhere.csv'"),
        ({"train": datasets.Dataset.from_list(rows(60)).select([])}, "has no rows|no column"),
        ({"validation": datasets.Dataset.from_list(rows(3))}, "3 of the validation examples"),
        ({"validation": 60}, "cannot split 60 of 60"),
        ({"proxy": 0.0}, "proxy=0.0: expected a fraction above 0 and up to 1"),
        ({"proxy": 1.5}, "proxy=1.5: expected a fraction"),
        ({"proxy": 500}, "proxy=500: there are only 54 training examples"),
        ({"proxy_by": "topic"}, "no column 'topic'. The columns are: prompt, response"),
        ({"proxy_by": None}, "proxy_by=None: expected 'random', 'length', 'kmeans' or"),
        ({"proxy": 0.1}, "5 training examples are too few for the default search space"),
        ({"metric": "accuracy"}, "there is no metric 'accuracy'"),
        ({"space": {"rank": IntDistribution(0, 4)}}, "admits rank=0"),
        ({"space": {"batch_size": IntDistribution(2, 28)}}, "a batch of 28, .* on 27 examples"),
        ({"reports": 0}, "reports=0: expected an integer from 1 to 100"),
        ({"reports": 101}, "reports=101: expected an integer from 1 to 100"),
        ({"epochs": 0}, "epochs=0: it must be at least 1"),
        ({"epochs": 1.5}, "epochs=1.5: expected an integer"),
        ({"micro_batch_size": 0}, "micro_batch_size=0: expected an integer from 1"),
        ({"max_length": 0}, "max_length=0: expected an integer from 1"),
        (
            {"max_length": 5},
            "all 60 training examples are longer than max_length=5 tokens: raise it",
        ),
        ({"max_length": 4096}, "max_length=4096: .* reads at most 2048 tokens"),
        ({"variant": "loha"}, "variant='loha': expected one of lora, rslora, dora"),
        (
            {"dtype": torch.float16},
            "dtype=torch.float16: expected torch.float32 or torch.bfloat16",
        ),
    ],
)
def test_mistakes_are_found_before_the_first_trial(
    make_objective: Make, changes: dict[str, Any], message: str
) -> None:
    objective = make_objective(**changes)
    with pytest.raises(InputError, match=message):
        objective.prepare()


def test_a_model_that_predicts_no_next_token(make_objective: Make, tmp_path: Path) -> None:
    objective = make_objective(model=make_tiny_family(tmp_path, "bert"))
    with pytest.raises(InputError, match="is no causal language model"):
        objective.prepare()


def test_a_base_model_without_a_finite_loss(
    make_objective: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optuna_llmbo.lora import prepare

    monkeypatch.setattr(prepare, "validation_loss", lambda *_, **__: float("nan"))
    with pytest.raises(InputError, match="nan before any training, in torch.float32: try"):
        make_objective().prepare()
