"""What a trial records of its recipe, and what is read back, whatever the space is now."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import IntDistribution
from optuna.trial import create_trial
import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.lora import optimize_packed
from optuna_llmbo.lora.export.from_study import facts_of
from optuna_llmbo.lora.recipe import DEFAULT
from optuna_llmbo.lora.recorded import recipe_of
from optuna_llmbo.study.outcome import default_trial


Make = Callable[..., LoRAObjective]


def fixed_by_a_function(trial: optuna.Trial) -> dict[str, Any]:
    """What the parameters do not say: a constant, and a rank in other words."""
    rank = 2 ** trial.suggest_int("log_rank", 1, 2)
    return {"rank": rank, "schedule": "cosine", "batch_size": 6}


@pytest.mark.parametrize("packed", [False, True], ids=["alone", "packed"])
def test_all_hyperparameters_are_recorded(make_objective: Make, packed: bool) -> None:
    objective = make_objective(space=fixed_by_a_function, reports=1)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    if packed:
        optimize_packed(study, objective, 1, 1)
    else:
        study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    recipe = recipe_of(trial, {})
    assert (recipe.schedule, recipe.batch_size) == ("cosine", 6)
    assert recipe.rank == 2 ** trial.params["log_rank"]
    assert dataclasses.asdict(recipe) == trial.user_attrs["recipe"]
    assert facts_of(study).recipe == recipe  # an export needs no space


def test_a_trial_that_crashes_has_its_recipe(make_objective: Make) -> None:
    def crash(_: Any) -> None:
        raise KeyboardInterrupt

    study = optuna.create_study()
    with pytest.raises(KeyboardInterrupt):
        study.optimize(make_objective(progress=crash), n_trials=1)
    assert recipe_of(study.trials[0], {}).schedule == "linear"


def old(params: dict[str, Any], **attributes: Any) -> optuna.trial.FrozenTrial:
    space: dict[str, BaseDistribution] = {
        name: CategoricalDistribution([value]) for name, value in params.items()
    }
    return create_trial(value=1.0, params=params, distributions=space, user_attrs=attributes)


def test_a_trial_without_a_record_has_the_studys_defaults() -> None:
    noted = {"variant": "dora", "epochs": 2, "defaults": {"schedule": "cosine"}}
    recipe = recipe_of(old({"r": 4}), noted)
    assert (recipe.rank, recipe.lora_alpha, recipe.variant) == (4, 8.0, "dora")
    assert (recipe.epochs, recipe.schedule) == (2, "cosine")
    with pytest.raises(InputError, match="are no hyperparameters.*'log_rank'"):
        recipe_of(old({"log_rank": 4}), noted)


def test_a_record_that_cannot_be_read() -> None:
    record = dataclasses.asdict(DEFAULT)
    assert recipe_of(old({}, recipe=record), {}) == DEFAULT
    earlier = {k: v for k, v in record.items() if k != "optimizer"}  # a field was added since
    assert recipe_of(old({}, recipe=earlier), {}) == DEFAULT
    without = {k: v for k, v in record.items() if k != "rank"}
    for bad in (record | {"mixture": 3}, without, "lora"):
        with pytest.raises(InputError, match="'recipe' of trial .* is .*a later version"):
            recipe_of(old({}, recipe=bad), {})


def test_the_control_of_another_space_is_not_this_ones(make_objective: Make) -> None:
    """The default is the nearest a space has: in another space it is another configuration."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for low, high in ((2, 6), (8, 9)):
        objective = make_objective(space={"batch_size": IntDistribution(low, high)}, reports=1)
        study.enqueue_trial(objective.default_params)
        study.enqueue_trial({"batch_size": low if low == 2 else high})
        study.optimize(objective, n_trials=2)
    first, other, second, last = study.trials
    assert [t.user_attrs["is_default"] for t in study.trials] == [True, False, True, True]
    assert first.params == {"batch_size": 6} and second.params == {"batch_size": 9}
    assert other.user_attrs["default_loss"] == first.value
    assert second.user_attrs["default_loss"] == second.value
    assert last.user_attrs["default_loss"] == second.value
    control = default_trial(study.trials)
    assert control is not None and control.number == second.number
