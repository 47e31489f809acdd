"""The best report's adapter instead of the last one's: alone, in a pack, resumed, promoted."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from typing import Literal

import optuna
from optuna.distributions import IntDistribution
import peft
import pytest
import torch

from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import checkpoint
from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.lora import metrics
from optuna_llmbo.lora import optimize_packed
from optuna_llmbo.lora import TrainingProgress
from optuna_llmbo.lora.best_report import BestReport
from optuna_llmbo.lora.evaluate import validation_loss
from optuna_llmbo.promote import promote


Make = Callable[..., LoRAObjective]

# The loss falls, then rises again: the rate is far too high for the last steps.
RISING: dict[str, Any] = {
    "space": {"batch_size": IntDistribution(9, 9)},
    "defaults": {"learning_rate": 0.2, "schedule": "constant", "warmup_ratio": 0.0, "rank": 4},
    "reports": 3,
}


def make_study(direction: Literal["minimize", "maximize"] = "minimize") -> optuna.Study:
    return optuna.create_study(direction=direction, sampler=optuna.samplers.RandomSampler(seed=0))


@pytest.mark.parametrize("packed", [False, True], ids=["alone", "packed"])
def test_the_best_report_counts(make_objective: Make, packed: bool) -> None:
    trials = []
    for best in (False, True):
        measured: list[float] = []

        def loss(model: Any, _: Any, examples: Any, measured: list[float] = measured) -> float:
            measured.append(validation_loss(model, examples))
            return measured[-1]

        objective = make_objective(
            **RISING, load_best_model_at_end=best, extra_metrics={"again": loss}
        )
        study = make_study()
        if packed:
            optimize_packed(study, objective, 1, 1)
        else:
            study.optimize(objective, n_trials=1)
        (trial,) = study.trials
        # after the one call before the search; the weights are its own
        assert trial.value == pytest.approx(measured[-1], rel=1e-4)
        trials.append(trial)
    last, best_one = trials
    reports = best_one.intermediate_values
    assert reports == pytest.approx(last.intermediate_values, rel=1e-3)
    smallest = min(reports, key=lambda percent: reports[percent])
    assert smallest < 100  # else this test shows nothing
    assert last.value == last.intermediate_values[100] > reports[smallest] == best_one.value
    assert best_one.user_attrs["best_report"] == smallest
    assert "best_report" not in last.user_attrs
    assert best_one.user_attrs["gain_over_base"] > last.user_attrs["gain_over_base"]


def test_the_best_adapter_is_kept(make_objective: Make, tmp_path: Path, tiny_llm: Path) -> None:
    objective = make_objective(**RISING, load_best_model_at_end=True, folder=tmp_path)
    study = make_study()
    study.optimize(objective, n_trials=1)
    fresh = load_model(resolve_source(tiny_llm), device="cpu", dtype=torch.float32).model
    loaded = peft.PeftModel.from_pretrained(fresh, study.trials[0].user_attrs["adapter"])
    loss = validation_loss(loaded, objective.prepare().validation)
    assert loss == pytest.approx(study.best_value, abs=2e-5)
    assert study.best_value < study.trials[0].intermediate_values[100]


def test_a_metric_to_maximize_and_equal_reports(make_objective: Make) -> None:
    """The first of the best reports counts."""
    values: Iterator[float] = iter([0.5, 0.1, 0.9, 0.9])  # one call before the search
    score = metrics.Custom("score", "maximize", lambda *_: next(values))
    objective = make_objective(
        space=RISING["space"], reports=3, metric=score, load_best_model_at_end=True
    )
    study = make_study("maximize")
    study.optimize(objective, n_trials=1)
    assert study.trials[0].value == 0.9 and study.trials[0].user_attrs["best_report"] == 67


def test_a_resumed_trial_has_the_best_report_of_before(
    make_objective: Make, tmp_path: Path
) -> None:
    options: dict[str, Any] = {**RISING, "load_best_model_at_end": True}
    whole = make_study()
    whole.optimize(make_objective(**options), n_trials=1)

    def stop(progress: TrainingProgress) -> None:
        if (progress.fraction or 0.0) > 0.7:
            raise SystemExit

    objective = make_objective(**options, folder=tmp_path, progress=stop)
    study = make_study()
    with pytest.MonkeyPatch.context() as patch:  # a process that is killed tidies nothing up
        patch.setattr(checkpoint.TrialFolders, "forget", lambda *_: None)
        with pytest.raises(SystemExit):
            study.optimize(objective, n_trials=1)
    objective.progress = None
    study.enqueue_trial(study.trials[0].params)
    retry = study.ask()
    study._storage.set_trial_system_attr(retry._trial_id, "retry_history", [0])
    assert objective(optuna.Trial(study, retry._trial_id)) == whole.best_value
    found = study.trials[-1].user_attrs["best_report"]
    assert found == whole.trials[0].user_attrs["best_report"] < 70


def test_promotions_do_the_same(make_objective: Make, tmp_path: Path) -> None:
    losses = []
    for best in (False, True):
        space = {"batch_size": IntDistribution(18, 18)}  # as many steps on twice the data
        objective = make_objective(
            **{**RISING, "space": space}, proxy=1.0, load_best_model_at_end=best
        )
        study = make_study()
        study.optimize(objective, n_trials=1)
        result = promote(study, objective, folder=tmp_path, n_seeds=1, rank=lambda _: [0])
        losses.append(result.winner.validation[0])
        # on the same data with the same seed a promotion is the trial again
        assert losses[-1] == pytest.approx(study.best_value, rel=1e-5)
    assert losses[1] < losses[0]
    assert len(list((tmp_path / "fits").iterdir())) == 2  # neither is taken for the other


def test_it_is_part_of_what_a_study_is(make_objective: Make) -> None:
    base = make_objective(**RISING).fingerprint
    ours = make_objective(**RISING, load_best_model_at_end=True).fingerprint
    assert ours == base | {"load_best_model_at_end": True, "reports": 3}


def test_several_metrics_have_no_best_report(make_objective: Make) -> None:
    objective = make_objective(metric=["loss", "adapter_size"], load_best_model_at_end=True)
    with pytest.raises(InputError, match="load_best_model_at_end with 2 metrics"):
        objective.prepare()


def test_a_report_that_is_not_finite_is_never_the_best() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    best = BestReport(larger_is_better=False)
    best.restore_({"a": parameter})
    best.see(50, float("nan"), {"a": parameter})
    assert best.value is None
    best.see(100, 1.0, {"a": parameter})
    parameter.data.fill_(7.0)
    best.restore_({"a": parameter})
    assert (best.percent, parameter.item()) == (100, 0.0)
