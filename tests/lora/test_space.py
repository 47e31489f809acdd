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


def test_what_only_numbers_between_lead_to_is_checked_in_each_trial() -> None:
    checked = spaces.check(
        lambda trial: {"batch_size": 80 if trial.suggest_int("quarter", 1, 20) == 9 else 4},
        n_examples=40,
        defaults=DEFAULT,
    )
    with pytest.raises(InputError, match="a batch of 80 is larger than the 40 examples"):
        checked.suggest(FixedTrial({"quarter": 9}))


def test_all_branches_of_a_function_are_checked() -> None:
    """Nested ones too, and those that only the end of a range leads to."""

    def nested(trial: optuna.Trial) -> dict[str, Any]:
        params: dict[str, Any] = {"batch_size": 4, "variant": "lora"}
        if trial.suggest_categorical("big", [False, True]):
            params["variant"] = trial.suggest_categorical("kind", ["dora", "pissa"])
            if params["variant"] == "pissa":
                params["init"] = trial.suggest_categorical("start", ["default", last])
        if trial.suggest_int("quarter", 1, 20) == 20:
            params["batch_size"] = largest
        return params

    last, largest = "default", 8
    checked = spaces.check(nested, n_examples=40, defaults=DEFAULT)
    found = {(one.variant, one.batch_size) for one in checked.admitted}
    assert found == {(v, b) for v in ("lora", "dora", "pissa") for b in (4, 8)}
    last = "gaussian"
    with pytest.raises(InputError, match="'gaussian': the variant 'pissa' is an initialization"):
        spaces.check(nested, n_examples=40, defaults=DEFAULT)
    last, largest = "default", 80
    with pytest.raises(InputError, match="a batch of 80 is larger than the 40"):
        spaces.check(nested, n_examples=40, defaults=DEFAULT)


def test_combinations_that_a_function_rejects_are_left_out() -> None:
    def picky(trial: optuna.Trial) -> dict[str, Any]:
        variant = trial.suggest_categorical("variant", ["lora", "pissa"])
        init = trial.suggest_categorical("init", ["default", "gaussian"])
        if variant == "pissa" and init == "gaussian":
            raise optuna.TrialPruned
        return {"variant": variant, "init": init}

    admitted = spaces.check(picky, n_examples=40, defaults=DEFAULT).admitted
    found = {(one.variant, one.init) for one in admitted}
    assert found == {("lora", "default"), ("lora", "gaussian"), ("pissa", "default")}


def test_a_function_with_more_branches_than_can_be_checked(warnings_logged: list[str]) -> None:
    def wide(trial: optuna.Trial) -> dict[str, Any]:
        for i in range(12):
            trial.suggest_categorical(f"switch {i}", [False, True])
        return {"rank": 4}

    spaces.check(wide, n_examples=40, defaults=DEFAULT)
    assert [m for m in warnings_logged if "more branches than the 2000" in m]


def test_combinations_of_a_space_are_checked() -> None:
    """Each value is admissible, and so is not each pair."""
    space = {
        "variant": CategoricalDistribution(["lora", "olora"]),
        "init": CategoricalDistribution(["default", "orthogonal"]),
    }
    with pytest.raises(InputError, match="admits variant='olora', init='orthogonal', which"):
        spaces.check(space, n_examples=40, defaults=DEFAULT)
    del space["variant"]
    admitted = spaces.check(space, n_examples=40, defaults=DEFAULT).admitted
    assert [one.init for one in admitted] == ["default", "orthogonal"]


def test_a_function_that_raises() -> None:
    def broken(trial: optuna.Trial) -> dict[str, Any]:
        kind = trial.suggest_categorical("kind", ["a", "b"])
        return {"rank": {"a": 4}[kind]}

    with pytest.raises(InputError, match="raises KeyError: 'b' for {'kind': 'b'}"):
        spaces.check(broken, n_examples=40, defaults=DEFAULT)


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
