from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import FixedTrial
from optuna.trial import TrialState
import pytest
import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.lora import optimize_packed
from optuna_llmbo.lora import TrainingProgress
from optuna_llmbo.lora.packed.pack import Pack
from optuna_llmbo.lora.tokens import Example


Make = Callable[..., LoRAObjective]

SPACE: dict[str, Any] = {
    "rank": IntDistribution(1, 8, log=True),
    "lora_dropout": FloatDistribution(0.0, 0.3),
    "batch_size": IntDistribution(2, 12),
    "learning_rate": FloatDistribution(1e-3, 2e-2, log=True),
}


class Stopper(optuna.pruners.BasePruner):
    """Prunes the trials of odd numbers at half the training."""

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return trial.number % 2 == 1 and (trial.last_step or 0) >= 50


def make_study(**options: Any) -> optuna.Study:
    options.setdefault("sampler", optuna.samplers.RandomSampler(seed=0))
    return optuna.create_study(direction="minimize", **options)


def without_costs(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    costs = ("seconds", "peak_memory_bytes", "default_loss", "gain_over_default")
    return {name: value for name, value in trial.user_attrs.items() if name not in costs}


@pytest.mark.parametrize("n_parallel", [1, 3])
def test_trials_are_what_they_are_one_after_the_other(
    make_objective: Make, n_parallel: int
) -> None:
    """Values, states, reports and attributes, with some trials pruned and others in the pack."""
    studies = [make_study(pruner=Stopper()) for _ in range(2)]
    objective = make_objective(space=SPACE)
    for study in studies:
        study.enqueue_trial({**objective.default_params, "lora_dropout": 0.2})
    studies[0].optimize(objective, n_trials=6)
    ended: list[int] = []
    optimize_packed(
        studies[1], objective, 6, n_parallel, [lambda _, trial: ended.append(trial.number)]
    )
    assert sorted(ended) == list(range(6))
    assert (ended == sorted(ended)) == (n_parallel == 1)
    for lone, packed in zip(studies[0].trials, studies[1].trials, strict=True):
        assert packed.params == lone.params
        assert packed.state is lone.state
        assert packed.value == pytest.approx(lone.value, rel=1e-4)
        assert packed.intermediate_values == pytest.approx(lone.intermediate_values, rel=1e-4)
        ours, expected = without_costs(packed), without_costs(lone)
        gains = [attributes.pop("gain_over_base", 0.0) for attributes in (ours, expected)]
        assert gains[0] == pytest.approx(gains[1], rel=1e-3)
        assert ours == expected
        assert packed.user_attrs["peak_memory_bytes"] > 0
    assert {trial.state for trial in studies[1].trials} == {
        TrialState.COMPLETE,
        TrialState.PRUNED,
    }


def test_seconds_are_shares(make_objective: Make) -> None:
    study = make_study()
    optimize_packed(study, make_objective(space=SPACE), 4, 4)
    shares = [trial.user_attrs["seconds"] for trial in study.trials]
    times = [trial.datetime_complete for trial in study.trials]
    wall = (max(t for t in times if t) - study.trials[0].datetime_start).total_seconds()  # type: ignore[operator]
    assert all(share > 0 for share in shares)
    assert 0.4 * wall < sum(shares) < wall


def test_the_sampler_sees_what_is_running(make_objective: Make) -> None:
    running: list[int] = []

    class Watcher(optuna.samplers.RandomSampler):
        def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            states = [t.state for t in study.get_trials(deepcopy=False)]
            running.append(states.count(TrialState.RUNNING))

    study = make_study(sampler=Watcher(seed=0), pruner=optuna.pruners.NopPruner())
    optimize_packed(study, make_objective(space=SPACE), 7, 3)
    assert running[:3] == [1, 2, 3]  # with the new one
    assert len(running) == 7 and max(running) == 3
    assert all(trial.state is TrialState.COMPLETE for trial in study.trials)


def test_the_default_is_not_pruned(make_objective: Make) -> None:
    objective = make_objective(space=SPACE)
    study = make_study(pruner=Stopper())
    study.enqueue_trial({"batch_size": 4})
    study.enqueue_trial(objective.default_params)
    optimize_packed(study, objective, 2, 2)
    default = study.trials[1]
    assert default.state is TrialState.COMPLETE
    assert default.user_attrs["default_loss"] == default.value


def test_one_that_diverges_is_pruned_and_harms_no_other(make_objective: Make) -> None:
    space = {"alpha": FloatDistribution(1.0, 1e38), "batch_size": IntDistribution(3, 9)}
    objective = make_objective(space=space)
    study = make_study()
    good = {"alpha": 16.0, "batch_size": 3}
    study.enqueue_trial(good)
    study.enqueue_trial({"alpha": 1e38, "batch_size": 3})
    optimize_packed(study, objective, 2, 2)
    fine, diverged = study.trials
    assert fine.value == pytest.approx(objective(FixedTrial(good)), rel=1e-4)
    assert diverged.state is TrialState.PRUNED
    assert "gradient's norm" in diverged.user_attrs["pruned_reason"]
    assert diverged.user_attrs["steps"] == 0 and diverged.intermediate_values == {}


@pytest.mark.parametrize("where", ["add", "step", "evaluate"])
def test_lack_of_gpu_memory_is_a_result(
    make_objective: Make, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Trials of rank 8 lack it; that of rank 2 does not mind."""

    def lacking(jobs: Sequence[Any]) -> bool:
        return any(8 in p.shape for job in jobs for p in job.adapter.parameters)

    def exhausted(self: Pack, *args: Any, **options: Any) -> Any:
        if where == "add" and args[0].rank == 8:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")
        if where == "evaluate" and lacking(args[0]):
            raise torch.OutOfMemoryError("CUDA out of memory")
        if where == "step" and lacking(args[0]):
            return None
        return real(self, *args, **options)

    name = "_add_gradients" if where == "step" else where
    real = getattr(Pack, name)
    monkeypatch.setattr(Pack, name, exhausted)
    study = make_study()
    for rank in (2, 8, 8):
        study.enqueue_trial({"rank": rank, "batch_size": 9})
    optimize_packed(study, make_objective(space=SPACE), 3, 3)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE, *[TrialState.PRUNED] * 2]
    for trial in study.trials[1:]:
        assert trial.user_attrs["pruned_reason"] == "out of memory with one example at once"
        assert "steps" in trial.user_attrs or where == "add"


def test_a_variant_that_changes_the_base_is_trained_alone(make_objective: Make) -> None:
    """While the others wait; they are not disturbed."""
    space = {
        "variant": CategoricalDistribution(["lora", "pissa", "dora"]),
        "batch_size": IntDistribution(3, 9),
    }
    objective = make_objective(space=space)
    study = make_study()
    for variant in ("lora", "dora", "pissa", "lora"):
        study.enqueue_trial({"variant": variant, "batch_size": 9 if variant == "dora" else 3})
    optimize_packed(study, objective, 4, 2)
    for trial in study.trials:
        lone = objective(FixedTrial(trial.params))
        assert trial.value == pytest.approx(lone, rel=1e-4), trial.params
        assert trial.user_attrs["steps"] == 27 // trial.params["batch_size"]


def test_an_interrupt_ends_all_that_run(make_objective: Make) -> None:
    def interrupt(progress: TrainingProgress) -> None:
        if progress.trial_number == 1 and (progress.fraction or 0.0) > 0.3:
            raise KeyboardInterrupt

    objective = make_objective(space=SPACE, progress=interrupt)
    study = make_study()
    with pytest.raises(KeyboardInterrupt):
        optimize_packed(study, objective, 6, 3)
    assert [t.state for t in study.trials[:3]] == [TrialState.FAIL] * 3
    assert all(trial.user_attrs["interrupted"] is True for trial in study.trials[:3])
    assert study.trials[1].user_attrs["steps"] > 0
    objective.progress = None
    params = objective.default_params
    assert objective(FixedTrial(params)) == make_objective(space=SPACE)(FixedTrial(params))


def test_a_mistake_in_the_space_fails_what_runs(make_objective: Make) -> None:
    def space(trial: optuna.Trial) -> dict[str, Any]:
        return {"rank": 0 if trial.number == 1 else 4, "batch_size": 4}

    study = make_study()
    with pytest.raises(InputError, match="rank=0: it must be at least 1"):
        optimize_packed(study, make_objective(space=space), 3, 2)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 2
    assert study.trials[0].user_attrs["steps"] == 0


def test_extra_metrics_measure_the_trained_adapter(make_objective: Make) -> None:
    def rank(model: Any, tokenizer: Any, examples: Sequence[Example]) -> float:
        return float(next(p for n, p in model.named_parameters() if "lora_A" in n).shape[0])

    study = make_study()
    optimize_packed(study, make_objective(space=SPACE, extra_metrics={"rank": rank}), 3, 3)
    for trial in study.trials:
        assert trial.user_attrs["metrics"]["rank"] == trial.params["rank"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_trials": 0}, "n_trials=0: expected an integer from 1"),
        ({"n_parallel": 0}, "n_parallel=0: expected"),
        ({"n_parallel": 2.0}, r"n_parallel=2\.0: expected"),
        ({"max_rows": 0}, "max_rows=0: expected"),
    ],
)
def test_mistakes(make_objective: Make, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        optimize_packed(make_study(), make_objective(), **{"n_trials": 1, **options})
    with pytest.raises(InputError, match='direction="minimize"'):
        optimize_packed(optuna.create_study(direction="maximize"), make_objective(), 1)
