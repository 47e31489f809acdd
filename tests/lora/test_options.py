"""The options of an objective are listed once."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys

import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.lora.options import ObjectiveOptions


def test_the_objective_takes_every_option_with_its_default() -> None:
    parameters = dict(inspect.signature(LoRAObjective).parameters)
    assert parameters.pop("progress").default is None
    options = inspect.signature(ObjectiveOptions).parameters
    assert list(parameters) == list(options)
    for name, parameter in parameters.items():
        assert parameter.default == options[name].default, name
        assert parameter.annotation == options[name].annotation, name


def test_the_objective_passes_every_option_on() -> None:
    given = {field.name: object() for field in dataclasses.fields(ObjectiveOptions)}
    given |= {"extra_metrics": {"a": len}, "defaults": {"rank": 4}, "trial_timeout": 60.0}
    made = LoRAObjective(**given).options  # type: ignore[arg-type]
    assert {name: getattr(made, name) for name in given} == given


def test_every_option_is_explained() -> None:
    text = inspect.getdoc(ObjectiveOptions) or ""
    for field in dataclasses.fields(ObjectiveOptions):
        assert f"\n    {field.name}: " in text, field.name


def test_variant_and_epochs_are_hyperparameters_that_defaults_may_override() -> None:
    options = ObjectiveOptions(None, "data", epochs=2, defaults={"rank": 4, "variant": "dora"})
    assert options.fixed == {"variant": "dora", "epochs": 2, "rank": 4}


def test_an_extra_metric_has_to_be_a_function() -> None:
    with pytest.raises(InputError, match="'score'.*expected a function of the model"):
        ObjectiveOptions(None, "data", extra_metrics={"score": 1}).check()  # type: ignore[dict-item]


def test_the_options_load_no_torch() -> None:
    code = "import sys, optuna_llmbo.lora.options; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "False", result.stderr


def test_ignored_columns_are_a_list() -> None:
    with pytest.raises(InputError, match="ignore_columns='system': expected a list of names"):
        ObjectiveOptions(None, "data", ignore_columns="system").check()
