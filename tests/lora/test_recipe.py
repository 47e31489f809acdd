from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import recipe
from optuna_llmbo.lora.recipe import DEFAULT
from optuna_llmbo.lora.recipe import LoRARecipe


def test_values_are_kept_as_they_are() -> None:
    made = LoRARecipe.from_params({"r": 3, "alpha": 0.5, "dropout": 0, "lr": 1.23e-5})
    assert made == LoRARecipe(3, 0.5, 0.0, DEFAULT.batch_size, 1.23e-5, "lora")
    assert made.alpha_ratio == 0.5 / 3


def test_numpy_numbers_become_plain_ones() -> None:
    made = LoRARecipe.from_params({"rank": np.int64(4), "lr": np.float64(1e-3)})
    assert type(made.rank) is int
    assert type(made.learning_rate) is float


@pytest.mark.parametrize("name", ["rank", "r", "lora_r"])
def test_alpha_follows_the_rank_when_it_is_not_named(name: str) -> None:
    assert LoRARecipe.from_params({name: 4}).lora_alpha == 8.0


def test_alpha_ratio_scales_with_the_rank() -> None:
    made = LoRARecipe.from_params({"rank": 6, "alpha_ratio": 0.25})
    assert made.lora_alpha == 1.5
    assert made.alpha_ratio == 0.25


def test_defaults_fill_what_is_not_named() -> None:
    defaults = dataclasses.replace(DEFAULT, batch_size=3, variant="dora")
    made = LoRARecipe.from_params({"learning_rate": 1e-3}, defaults)
    assert made == dataclasses.replace(defaults, learning_rate=1e-3)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"rank": 0}, "rank=0: it must be at least 1"),
        ({"rank": 8.0}, "rank=8.0: expected an integer"),
        ({"rank": True}, "rank=True: expected an integer"),
        ({"rank": "8"}, "rank='8': expected an integer"),
        ({"alpha": 0}, "lora_alpha=0.0: it must be above 0"),
        ({"alpha": float("nan")}, "lora_alpha=nan: expected a finite number"),
        ({"alpha_ratio": -1.0}, "alpha_ratio=-1.0: it must be above 0"),
        ({"dropout": 1.0}, "lora_dropout=1.0: .* below 1"),
        ({"dropout": -0.1}, "lora_dropout=-0.1: it must be at least 0"),
        ({"batch_size": 0}, "batch_size=0: it must be at least 1"),
        ({"batch_size": 2.5}, "batch_size=2.5: expected an integer"),
        ({"lr": 0.0}, "learning_rate=0.0: it must be above 0"),
        ({"lr": None}, "learning_rate=None: expected a finite number"),
        ({"warmup": 1.0}, "warmup_ratio=1.0: it must be at least 0 and below 1"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1: it must be at least 0"),
        ({"epochs": 1.5}, "epochs=1.5: expected an integer"),
        ({"lr_ratio": 0}, "lr_ratio=0.0: it must be above 0"),
        ({"optim": "sgd"}, "optimizer='sgd': expected one of adamw, adafactor, adamw-8bit"),
        ({"schedule": "step"}, "schedule='step': expected one of linear, cosine, constant"),
        ({"bias": True}, "bias=True: expected one of none, all, lora_only"),
        ({"target_modules": "q_proj,"}, "target_modules='q_proj,': expected one of all-linear"),
        ({"target_modules": 3}, "target_modules=3: expected one of all-linear, attention, mlp"),
        ({"variant": "pissa", "init": "gaussian"}, "'pissa' is an initialization of its own"),
        ({"lr": 1e-3, "learning_rate": 1e-3}, "'lr' and 'learning_rate' set the same thing"),
        ({"alpha": 8, "alpha_ratio": 2}, "'alpha' and 'alpha_ratio' set the same thing"),
        ({"alpha_ratio": 8, "lora_alpha": 2}, "'alpha_ratio' and 'lora_alpha' set the same"),
        ({"learnig_rate": 1e-3}, "unknown .* 'learnig_rate'. Did you mean 'learning_rate'.* rank"),
        ({"beta1": 1}, "unknown hyperparameter 'beta1'. Known: alpha, alpha_ratio, batch_size"),
    ],
)
def test_bad_params(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LoRARecipe.from_params(params)


def test_lora_plus_has_a_ratio_of_its_own() -> None:
    def ratio(params: dict[str, Any], **defaults: Any) -> float:
        start = dataclasses.replace(DEFAULT, **defaults)
        return LoRARecipe.from_params(params, start).lr_ratio

    assert ratio({"variant": "lora+"}) == 16
    assert ratio({"variant": "lora+", "lr_ratio": 4}) == ratio({"lr_ratio": 4}) == 4
    assert ratio({}) == ratio({"variant": "lora"}, variant="lora+", lr_ratio=16) == 1
    assert ratio({"variant": "lora+"}, lr_ratio=2) == 2  # a default of the user's own


def test_a_sequence_of_modules() -> None:
    made = LoRARecipe.from_params({"target_modules": ["q_proj", "v_proj"]})
    assert made == LoRARecipe.from_params({"target_modules": "q_proj, v_proj"})


def test_the_default_of_words_that_lack_it() -> None:
    space: dict[str, BaseDistribution] = {
        "variant": CategoricalDistribution(["dora", "pissa"]),
        "schedule": CategoricalDistribution(["cosine", "linear"]),
        "epochs": IntDistribution(2, 4),
    }
    assert recipe.default_params(space) == {"variant": "dora", "schedule": "linear", "epochs": 2}


def test_bad_variant() -> None:
    with pytest.raises(InputError, match="variant='loha': expected one of lora, rslora, dora"):
        dataclasses.replace(DEFAULT, variant="loha")


@pytest.mark.parametrize(("n_examples", "largest"), [(8, 2), (50, 12), (5000, 256)])
def test_default_space_leaves_four_steps(n_examples: int, largest: int) -> None:
    space = recipe.default_space(n_examples)
    recipe.check_space(space, n_examples)
    assert space["batch_size"] == IntDistribution(2, largest, log=True)
    assert n_examples // largest >= 4


def test_default_space_needs_eight_examples() -> None:
    with pytest.raises(InputError, match="7 training examples are too few .* at least 8"):
        recipe.default_space(7)


def test_default_params_are_the_default() -> None:
    params = recipe.default_params(recipe.default_space(1000))
    assert LoRARecipe.from_params(params) == DEFAULT


def test_default_params_are_the_nearest_admissible() -> None:
    space: dict[str, BaseDistribution] = {
        "lora_r": IntDistribution(32, 64, step=8),
        "alpha": FloatDistribution(1.0, 1000.0),
        "dropout": FloatDistribution(0.0, 0.3, step=0.1),
        "batch_size": IntDistribution(2, 12, log=True),
        "lr": CategoricalDistribution([1e-5, 1e-4, 4e-4]),
    }
    params = recipe.default_params(space)
    assert params == {"lora_r": 32, "alpha": 64.0, "dropout": 0.0, "batch_size": 12, "lr": 1e-4}
    assert list(params) == list(space)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"rank": IntDistribution(0, 8)}, r"space\['rank'\] = .* admits rank=0: .* at least 1"),
        ({"rank": CategoricalDistribution([4, "8"])}, "admits rank='8': expected an integer"),
        ({"rank": FloatDistribution(1, 8)}, "admits rank=1.0: expected an integer"),
        ({"dropout": FloatDistribution(0, 1.0)}, "admits lora_dropout=1.0: .* below 1"),
        ({"batch_size": IntDistribution(2, 41)}, "a batch of 41, but a trial trains on 40"),
        ({"lr": FloatDistribution(0.0, 1e-3)}, "admits learning_rate=0.0: it must be above 0"),
        ({"lr": CategoricalDistribution([-1e-3])}, "admits learning_rate=-0.001"),
        ({"rank": [1, 2]}, r"space\['rank'\] is \[1, 2\]: expected a distribution"),
        ({"ranks": IntDistribution(1, 8)}, "unknown hyperparameter 'ranks'. Did you mean 'rank'"),
    ],
)
def test_bad_spaces(space: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recipe.check_space(space, 40)
