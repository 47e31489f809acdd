"""How a trial ends that does not complete, and how it is taken up again."""

from __future__ import annotations

from collections.abc import Callable
import errno
import json
from pathlib import Path
from typing import Any
import warnings

import optuna
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import create_trial
from optuna.trial import FixedTrial
from optuna.trial import TrialState
import peft
import pytest
import torch

from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import checkpoint
from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.lora import prepare
from optuna_llmbo.lora import train
from optuna_llmbo.lora.evaluate import validation_loss
from optuna_llmbo.lora.memory import MicroBatch
from optuna_llmbo.lora.run import Run
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.study.history import read_history
from optuna_llmbo.study.outcome import TrialCrashed
from tests.lora.conftest import rows


Make = Callable[..., LoRAObjective]
SPACE: dict[str, Any] = {"rank": IntDistribution(1, 8), "batch_size": IntDistribution(3, 3)}


def make_study(**options: Any) -> optuna.Study:
    options.setdefault("sampler", optuna.samplers.RandomSampler(seed=0))
    return optuna.create_study(direction="minimize", **options)


class Allocator:
    """Fails whenever more than so many examples are in memory at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        self.most = most
        self.sizes: list[int] = []
        real = train.response_nll  # type: ignore[attr-defined]

        def nll(model: Any, batch: Any) -> torch.Tensor:
            self.sizes.append(len(batch.ids))
            if len(batch.ids) > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(model, batch)

        monkeypatch.setattr(train, "response_nll", nll)


# --- memory ---


def test_the_micro_batch_shrinks_once_and_nothing_else_changes(
    make_objective: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {"batch_size": IntDistribution(9, 9)}
    options: dict[str, Any] = {"space": space, "defaults": {"lora_dropout": 0.0}}
    expected = make_objective(**options)(FixedTrial({"batch_size": 9}))
    objective = make_objective(micro_batch_size=9, **options)
    objective.prepare()
    allocator = Allocator(monkeypatch, most=3)
    study = make_study()
    study.optimize(objective, n_trials=2)
    assert [trial.value for trial in study.trials] == [pytest.approx(expected, rel=1e-5)] * 2
    assert [size for size in allocator.sizes if size > 3] == [9, 5]  # then never again
    assert study.trials[1].user_attrs["steps"] == 3


@pytest.mark.long
def test_what_does_not_fit_is_infeasible_and_the_next_one_is_not_slower(
    make_objective: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = make_objective(space=SPACE)
    objective.prepare()
    allocator = Allocator(monkeypatch, most=0)
    study = make_study()
    study.optimize(objective, n_trials=1)
    allocator.most = 100
    study.optimize(objective, n_trials=1)
    bad, good = study.trials
    assert bad.state is TrialState.PRUNED and bad.user_attrs["infeasible"] is True
    assert bad.user_attrs["pruned_reason"] == "out of memory with one example at once"
    assert good.state is TrialState.COMPLETE
    assert objective.prepare().micro_batch.size == 8


@pytest.mark.long
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        *map(
            RuntimeError,
            [
                "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory",
                "[enforce fail at alloc_cpu.cpp:116] DefaultCPUAllocator: not enough memory",
                "CUDA error: out of memory",
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
                "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
                "MPS backend out of memory (MPS allocated: 17.88 GB)",
            ],
        ),
    ],
    ids=str,
)
def test_all_the_ways_to_run_out_of_memory(error: Exception) -> None:
    sizes = []

    def work(size: int) -> int:
        sizes.append(size)
        if size > 2:
            raise error
        return size

    assert MicroBatch(16).fit(work) == 2
    assert sizes == [16, 8, 4, 2]


def test_other_errors_are_no_lack_of_memory() -> None:
    def work(size: int) -> int:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        MicroBatch(16).fit(work)


def test_infeasible_trials_are_no_observations() -> None:
    space = {"x": FloatDistribution(0, 1)}
    study = make_study()
    study.add_trial(create_trial(value=1.0, params={"x": 0.1}, distributions=space))  # type: ignore[arg-type]
    for attributes in ({}, {"infeasible": True}):
        pruned = create_trial(
            state=TrialState.PRUNED,
            params={"x": 0.9},
            distributions=space,  # type: ignore[arg-type]
            intermediate_values={25: 0.5},
            user_attrs=attributes,
        )
        study.add_trial(pruned)
    history = read_history(study.trials, study.directions, SearchSpace(space), current=9)
    assert (history.n_observed, len(history.infeasible)) == (2, 1)


# --- losses that explode, errors ---


def test_an_exploding_loss_is_pruned_early(
    make_objective: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = make_objective(space=SPACE, reports=1)
    base = objective.base_loss
    real, factors = train.accumulate_gradients, iter([1, 5, 1, 5, 1, 5, 5, 5, 1])

    def scaled(*args: Any) -> float:
        real(*args)
        return base * next(factors)

    monkeypatch.setattr(train, "accumulate_gradients", scaled)
    study = make_study()
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert trial.state is TrialState.PRUNED and trial.user_attrs["infeasible"]
    assert trial.user_attrs["steps"] == 7  # mean of 5, 1, 5, 5 is above 3; single ones are noise
    assert "more than 3 times the base model's" in trial.user_attrs["pruned_reason"]


def test_a_crash_fails_the_trial_and_the_study_goes_on(
    make_objective: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = make_objective(space=SPACE)
    objective.prepare()
    real, calls = train.accumulate_gradients, []

    def buggy(*args: Any) -> float:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("a kernel that does not exist")
        return real(*args)

    monkeypatch.setattr(train, "accumulate_gradients", buggy)
    study = make_study()
    study.optimize(objective, n_trials=2, catch=(TrialCrashed,))
    crashed, fine = study.trials
    assert (crashed.state, fine.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert "in buggy" in crashed.user_attrs["traceback"]
    assert "a kernel that does not exist" in crashed.user_attrs["traceback"]
    assert "infeasible" not in crashed.user_attrs
    again = make_objective(space=SPACE)
    assert again(FixedTrial(fine.params)) == fine.value  # the base is as it was


# --- going on after a crash ---


class Killed(BaseException):
    """Nothing in the package handles it, as nothing handles a signal."""


def test_a_retried_trial_goes_on_where_it_was(make_objective: Make, tmp_path: Path) -> None:
    space = {"batch_size": IntDistribution(3, 3), "lora_dropout": FloatDistribution(0.2, 0.2)}
    expected = make_study()
    expected.optimize(make_objective(space=space), n_trials=1)

    def kill(progress: Any) -> None:
        if progress.fraction > 0.7:
            raise Killed

    objective = make_objective(space=space, folder=tmp_path, progress=kill)
    with pytest.MonkeyPatch.context() as patch:  # a process that is killed tidies nothing up
        patch.setattr(checkpoint.TrialFolders, "forget", lambda *_: None)
        study = make_study()
        with pytest.raises(Killed):
            study.optimize(objective, n_trials=1)
    assert (tmp_path / "trial-0" / "checkpoint.pt").exists()

    steps: list[float] = []
    objective.progress = lambda progress: steps.append(progress.fraction or 0.0)
    first = study.trials[0]
    study.enqueue_trial(first.params)
    retry = study.ask()
    study._storage.set_trial_system_attr(retry._trial_id, "retry_history", [0])
    retry = optuna.Trial(study, retry._trial_id)
    study.tell(retry, objective(retry))
    done = study.trials[-1]
    assert steps[0] > 0.5 and steps[-1] == 1.0  # the first half was there
    assert done.value == expected.trials[0].value
    assert done.intermediate_values == expected.trials[0].intermediate_values
    for name in ("steps", "tokens"):
        assert done.user_attrs[name] == expected.trials[0].user_attrs[name]
    assert not list(tmp_path.rglob("checkpoint.pt"))


def test_a_broken_checkpoint_costs_time_only(make_objective: Make, tmp_path: Path) -> None:
    folders = checkpoint.TrialFolders(tmp_path)
    folders.of(0).mkdir(parents=True)
    (folders.of(0) / checkpoint.CHECKPOINT).write_bytes(b"half of a file")
    assert folders.load([0], {}, device=torch.device("cpu")) is None


def test_what_another_study_has_left_is_not_gone_on_from(
    make_objective: Make, tmp_path: Path
) -> None:
    folders = checkpoint.TrialFolders(tmp_path)
    objective = make_objective(space=SPACE, folder=tmp_path)
    expected = make_objective(space=SPACE)(FixedTrial({"rank": 4, "batch_size": 3}))
    for about in ({}, {"recipe": {"rank": 8}, "objective": objective.fingerprint}):
        folders.save(0, about, {"training": {}, "values": {}, "steps": 1, "tokens": 1})
        study = make_study()
        study.enqueue_trial({"rank": 4, "batch_size": 3})
        study.optimize(objective, n_trials=1)
        assert study.best_value == expected


# --- adapters ---


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora", "pissa", "olora", "lora+"])
def test_the_adapter_that_is_kept_is_the_one_that_was_trained(
    make_objective: Make, tmp_path: Path, tiny_llm: Path, variant: str
) -> None:
    objective = make_objective(space={**SPACE, "learning_rate": FloatDistribution(1e-2, 1e-2)},
                               variant=variant, folder=tmp_path)  # fmt: skip
    study = make_study()
    study.optimize(objective, n_trials=1)
    folder = study.trials[0].user_attrs["adapter"]
    assert folder == str(tmp_path / "trial-0" / "adapter")
    fresh = load_model(resolve_source(tiny_llm), device="cpu", dtype=torch.float32).model
    loaded = peft.PeftModel.from_pretrained(fresh, folder)
    loss = validation_loss(loaded, objective.prepare().validation)
    assert loss == pytest.approx(study.best_value, abs=2e-5)
    assert loss < objective.base_loss - 0.05


@pytest.mark.parametrize("keep", [0, 2])
def test_only_the_best_adapters_are_kept(make_objective: Make, tmp_path: Path, keep: int) -> None:
    objective = make_objective(
        space={**SPACE, "learning_rate": FloatDistribution(1e-4, 1e-2, log=True)},
        folder=tmp_path,
        keep=keep,
    )
    study = make_study()
    study.optimize(objective, n_trials=5)
    best = sorted(study.trials, key=lambda trial: trial.value or 0.0)[:keep]
    kept = {path.parent.name for path in tmp_path.glob("trial-*/adapter")}
    assert kept == {f"trial-{trial.number}" for trial in best}
    assert len(list(tmp_path.iterdir())) == keep


@pytest.mark.parametrize("when", ["in the trial", "after it"])
def test_an_adapter_that_breaks_a_constraint_is_not_kept(
    make_objective: Make, tmp_path: Path, when: str
) -> None:
    """The third trial is the best one and breaks a constraint; the best of the others is kept."""
    space = {"rank": IntDistribution(4, 4), "learning_rate": FloatDistribution(1e-5, 2e-2)}
    objective = make_objective(space=SPACE | space, folder=tmp_path)
    rates = (1e-5, 3e-3, 2e-2, 1e-4)

    def breaks(trial: optuna.trial.FrozenTrial) -> tuple[float]:
        return (trial.params["learning_rate"] - 1e-2,)

    def run(trial: optuna.Trial) -> Any:
        if when == "in the trial":
            trial.storage.set_trial_system_attr(
                trial._trial_id, "constraints", [rates[trial.number] - 1e-2]
            )
        return objective(trial)

    after = breaks if when == "after it" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental in Optuna 4, deprecated in Optuna 5
        study = make_study(sampler=optuna.samplers.TPESampler(seed=0, constraints_func=after))
    for i, rate in enumerate(rates):
        study.enqueue_trial({"rank": 4, "batch_size": 3, "learning_rate": rate})
        study.optimize(run, n_trials=1)
        kept = {path.parent.name for path in tmp_path.glob("trial-*/adapter")}
        assert kept >= {f"trial-{min(i, 1)}"}
    losses = [trial.value for trial in study.trials]
    assert min(losses) == losses[2] and sorted(losses)[1] == losses[1]  # type: ignore[type-var]
    assert "trial-2" not in kept
    assert (kept == {"trial-1"}) == (when == "in the trial")


@pytest.mark.parametrize("what", ["checkpoint", "adapter"])
def test_a_full_disk_costs_the_file_and_not_the_trial(
    make_objective: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    warnings_logged: list[str],
    what: str,
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if what == "checkpoint":
        monkeypatch.setattr(checkpoint.torch, "save", full)  # type: ignore[attr-defined]
    else:
        monkeypatch.setattr(checkpoint, "save_adapter", full)
    study = make_study()
    study.optimize(make_objective(space=SPACE, folder=tmp_path), n_trials=2)
    said = {"checkpoint": "A retry of the trial would start over", "adapter": "is not kept"}[what]
    for trial in study.trials:
        assert trial.state is TrialState.COMPLETE
        (problem,) = set(trial.user_attrs["problems"])
        assert said in problem and "No space left on device" in problem
        assert (trial.user_attrs["adapter"] == "") == (what == "adapter")
    of_trials = [warning for warning in warnings_logged if warning.startswith("trial ")]
    assert len(of_trials) == 2  # one each


def test_a_folder_that_cannot_be_written_is_found_before_the_first_trial(
    make_objective: Make, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write .*file.*: Not a directory|File exists"):
        make_objective(folder=tmp_path / "file").prepare()


def test_keep_is_checked(make_objective: Make) -> None:
    with pytest.raises(InputError, match="keep=-1: expected how many adapters"):
        make_objective(keep=-1).prepare()


def test_validation_shrinks_too(make_objective: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    real, sizes = prepare.validation_loss, []  # type: ignore[attr-defined]

    def limited(model: Any, examples: Any, *, batch_size: int) -> float:
        sizes.append(batch_size)
        if batch_size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, examples, batch_size=batch_size)

    monkeypatch.setattr(prepare, "validation_loss", limited)
    objective = make_objective()
    assert objective.base_loss > 0 and sizes == [8, 4, 2]


def test_a_state_is_gone_on_from_where_the_data_file_was_moved(
    make_objective: Make, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    places = tmp_path / "a.jsonl", tmp_path / "elsewhere" / "b.jsonl"
    for place in places:
        place.write_text("".join(json.dumps(row) + "\n" for row in rows(60)))

    def about(**options: Any) -> dict[str, Any]:
        objective = make_objective(**options)
        prepared = objective.prepare()
        recipe = prepared.space.default_recipe
        assert recipe is not None
        return Run(
            FixedTrial({}), recipe, prepared, objective.options, None, objective.limits
        )._about

    one, other = (about(train=str(place)) for place in places)
    assert one == other != about(train=str(places[0]), seed=1)
