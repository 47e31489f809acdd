"""Searching on something other than the loss, and on several things."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import TrialState
import pytest

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.lora import metrics
from optuna_llmbo.lora.packed.parallel import optimize_packed
from optuna_llmbo.lora.tokens import Example


Make = Callable[..., LoRAObjective]
SPACE: dict[str, Any] = {
    "rank": IntDistribution(1, 8),
    "batch_size": IntDistribution(3, 6),
    "learning_rate": FloatDistribution(1e-4, 2e-2, log=True),
}


def larger(model: Any, tokenizer: Any, examples: Sequence[Example]) -> float:
    """A made-up score: the more, the larger A's weights."""
    weights = [p for n, p in model.named_parameters() if "lora_A" in n]
    return sum(float(weight.detach().abs().sum()) for weight in weights)


SCORE = metrics.Custom("score", "maximize", larger)


def test_a_score_to_maximize(make_objective: Make, tmp_path: Path) -> None:
    objective = make_objective(space=SPACE, metric=SCORE, reports=3, folder=tmp_path)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(0))
    study.optimize(objective, n_trials=4)
    for trial in study.trials:
        assert list(trial.intermediate_values)[-1] == 100
        assert trial.intermediate_values[100] == trial.value
        assert "gain_over_base" not in trial.user_attrs
    (kept,) = tmp_path.glob("trial-*/adapter")
    assert kept.parent.name == f"trial-{study.best_trial.number}"
    assert objective.fingerprint["metric"] == "score"


def test_what_is_generated(make_objective: Make) -> None:
    decoding = metrics.ExactMatch("text").decoding
    short = type(decoding)(max_new_tokens=8)
    objective = make_objective(space=SPACE, metric=metrics.ExactMatch("text", decoding=short),
                               reports=1)  # fmt: skip
    study = optuna.create_study(direction="maximize")
    study.optimize(objective, n_trials=1)
    assert 0 <= study.best_value <= 1


def test_loss_and_what_it_costs(make_objective: Make) -> None:
    objective = make_objective(space=SPACE, metric=["loss", "adapter_size", "seconds"])
    study = optuna.create_study(
        directions=["minimize"] * 3, sampler=LLMBOSampler(n_startup_trials=6, seed=0)
    )
    study.optimize(objective, n_trials=7)
    assert all(trial.state is TrialState.COMPLETE for trial in study.trials)
    by_rank = sorted(study.trials, key=lambda trial: trial.params["rank"])
    sizes = [trial.values[1] for trial in by_rank]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    for trial in study.trials:
        assert trial.intermediate_values == {}
        assert 0 < trial.values[2] <= trial.user_attrs["seconds"] + 1e-3  # which are rounded
    alone = make_objective(space=SPACE)
    params = study.trials[-1].params
    assert alone(optuna.trial.FixedTrial(params)) == study.trials[-1].values[0]


@pytest.mark.parametrize(
    ("metric", "directions", "message"),
    [
        ("loss", ["maximize"], 'loss to minimize: create .* direction="minimize"'),
        (
            ["loss", "seconds"],
            ["minimize"],
            r'seconds to minimize: .* directions=\["minimize", "m',
        ),
        ("losss", ["minimize"], "no metric 'losss'. Did you mean 'loss'"),
        ([], ["minimize"], "expected at least one metric"),
        (["loss", "loss"], ["minimize"] * 2, "two metrics are called 'loss'"),
        (larger, ["minimize"], "of a function of your own make metrics.Custom"),
    ],
)
def test_bad_metrics(
    make_objective: Make, metric: Any, directions: list[str], message: str
) -> None:
    study = optuna.create_study(directions=directions)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        make_objective(metric=metric).check_study(study)


def test_seconds_alone_are_a_trials() -> None:
    with pytest.raises(InputError, match="is a trial's"):
        metrics.from_name("seconds")(None, None, [])


def test_packed_trials_are_on_the_loss(make_objective: Make) -> None:
    study = optuna.create_study(direction="maximize")
    with pytest.raises(InputError, match="measured by their loss"):
        optimize_packed(study, make_objective(space=SPACE, metric=SCORE), 1)
