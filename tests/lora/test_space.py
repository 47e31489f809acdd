from __future__ import annotations

import dataclasses
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import FixedTrial
import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import space as spaces
from optuna_llmbo.lora.recipe import DEFAULT
from optuna_llmbo.lora.recipe import LoRARecipe


def branches(trial: optuna.Trial) -> dict[str, Any]:
    """A conditional space."""
    params: dict[str, Any] = {"rank": trial.suggest_int("rank", 1, 64, log=True)}
    if trial.suggest_categorical("lora_dropout", [0.0, 0.1]) == 0.0:
        params["lora_dropout"] = 0.0
    else:
        params["lora_dropout"] = 0.1
        params["lr"] = trial.suggest_float("lr", 1e-5, 1e-3, log=True)
    return params


def powers(trial: optuna.Trial) -> dict[str, Any]:
    """A space in other words."""
    return {"rank": 2 ** trial.suggest_int("log_rank", 0, 6)}


def test_suggest_uses_the_distributions() -> None:
    space = {
        "rank": IntDistribution(2, 6, step=2),
        "alpha_ratio": FloatDistribution(0.5, 4.0, log=True),
        "batch_size": CategoricalDistribution([1, 2]),
    }
    checked = spaces.check(
        space, n_examples=4, defaults=dataclasses.replace(DEFAULT, variant="rslora")
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        recipe = checked.suggest(trial)
        assert trial.distributions == space
        assert recipe == LoRARecipe(
            rank=trial.params["rank"],
            lora_alpha=trial.params["alpha_ratio"] * trial.params["rank"],
            lora_dropout=DEFAULT.lora_dropout,
            batch_size=trial.params["batch_size"],
            learning_rate=DEFAULT.learning_rate,
            variant="rslora",
        )


def test_function_is_walked_to_the_default() -> None:
    checked = spaces.check(branches, n_examples=40, defaults=DEFAULT)
    assert checked.default_params == {"rank": 16, "lora_dropout": 0.0}
    assert checked.distributions["rank"] == IntDistribution(1, 64, log=True)
    recipe = checked.suggest(FixedTrial({"rank": 4, "lora_dropout": 0.1, "lr": 1e-4}))
    assert (recipe.rank, recipe.lora_dropout, recipe.learning_rate) == (4, 0.1, 1e-4)


def test_function_with_parameters_of_its_own_has_no_default() -> None:
    checked = spaces.check(powers, n_examples=40, defaults=DEFAULT)
    assert checked.default_params is None
    assert checked.default_recipe is None
    assert checked.suggest(FixedTrial({"log_rank": 5})).rank == 32


def test_what_a_function_proposes_is_checked_in_each_trial() -> None:
    checked = spaces.check(
        lambda trial: {"batch_size": 4 * trial.suggest_int("quarter", 1, 20)},
        n_examples=40,
        defaults=DEFAULT,
    )
    with pytest.raises(InputError, match="a batch of 80 is larger than the 40 examples"):
        checked.suggest(FixedTrial({"quarter": 20}))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (lambda trial: {"rank": trial.suggest_int("rank", 0, 4)}, "admits rank=0"),
        (lambda trial: {"rank": trial.suggest_categorical("rank", ["4"])}, "admits rank='4'"),
        (lambda trial: {"batch_size": trial.suggest_int("batch_size", 1, 50)}, "a batch of 50"),
        (lambda trial: {"ranks": trial.suggest_int("ranks", 1, 4)}, "'ranks'. Did you mean"),
        (lambda trial: None, "returned None, expected a dict"),
        (lambda trial: {"batch_size": 64}, "a batch of 64 is larger than the 40 examples"),
        (3, "space=3: expected a dict"),
        ("default", "search space 'default' cannot be read"),
    ],
)
def test_bad_spaces(space: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        spaces.check(space, n_examples=40, defaults=DEFAULT)


def test_the_default_batch_must_fit_where_the_space_does_not_name_it() -> None:
    with pytest.raises(InputError, match="a batch of 16 is larger than the 10 examples"):
        spaces.check({"rank": IntDistribution(1, 4)}, n_examples=10, defaults=DEFAULT)


@pytest.mark.parametrize(
    ("space", "moved"),
    [
        ({"batch_size": IntDistribution(2, 12)}, "batch_size (16, in the space 12)"),
        ({"rank": IntDistribution(32, 64)}, "rank (16, in the space 32)"),
        ({"learning_rate": FloatDistribution(1e-6, 1e-4, log=True)}, "learning_rate (0.0002, in"),
        ({"rank": IntDistribution(1, 64, log=True)}, None),
        (lambda trial: {"rank": trial.suggest_int("rank", 32, 64)}, "rank (16, in the space 32)"),
        (powers, None),  # no default can be told
    ],
    ids=["batch", "rank", "rate", "inside", "function", "in other words"],
)
def test_a_default_outside_of_the_space_is_said(
    space: Any, moved: str | None, warnings_logged: list[str]
) -> None:
    spaces.check(space, n_examples=100, defaults=DEFAULT)
    if moved is None:
        assert warnings_logged == []
    else:
        (said,) = warnings_logged
        assert said.startswith("the default configuration lies outside of the space: ")
        assert moved in said
