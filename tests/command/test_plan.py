from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from optuna_llmbo.command.plan import Plan
from optuna_llmbo.command.plan import read_pairs
from optuna_llmbo.command.settings_file import SettingsFile
from optuna_llmbo.errors import InputError


RATE = FloatDistribution(1e-5, 1e-2, log=True)
RANK = IntDistribution(4, 64)
RATIO = FloatDistribution(0.5, 4.0)
GIVEN = {"config": "/t/train.json", "folder": "/t", "trial": 7, "gpus": "0,1"}


@pytest.fixture
def file(tmp_path: Path) -> SettingsFile:
    path = tmp_path / "train.json"
    path.write_text(
        json.dumps(
            {
                "training": {"lr": 1e-4},
                "rank": 8,
                "alpha": 16,
                "layers": ["q_proj", "v_proj"],
                "bf16": True,
                "optim": "adamw",
                "output": "out",
            }
        )
    )
    return SettingsFile(path)


def plan(
    command: str,
    space: dict[str, Any],
    config: SettingsFile | None = None,
    assign: dict[str, Any] | None = None,
    env: dict[str, str] | None = None,
) -> Plan:
    return Plan(command.split("|"), space, config, assign or {}, env or {})


# --- placeholders ---


@pytest.mark.parametrize(
    ("word", "filled"),
    [
        ("--lr={rate}", "--lr=2.0e-05"),
        ("{folder}/{trial}", "/t/7"),
        ("{rank * ratio}", "12.0"),
        ("{round(rank * ratio)}", "12"),
        ("{2 ** rank}", "256"),
        ("{{rate}}", "{rate}"),
        ("${HOME} ${rate}", "${HOME} ${rate}"),
        ('{"a": 1}', '{"a": 1}'),
        ("{} {1} {1,2} {print $1}", "{} {1} {1,2} {print $1}"),
        ("a b;c", "a b;c"),
    ],
)
def test_words_are_filled(word: str, filled: str) -> None:
    made = plan(
        f"run|{{rate}}|{{rank}}|{{ratio}}|{word}", {"rate": RATE, "rank": RANK, "ratio": RATIO}
    )
    call = made.fill({"rate": 2e-5, "rank": 8, "ratio": 1.5}, GIVEN)
    assert call.words == ("run", "2.0e-05", "8", "1.5", filled)


def test_booleans_and_texts_in_words_and_the_environment() -> None:
    space = {
        "bf16": CategoricalDistribution([True, False]),
        "optim": CategoricalDistribution(["a b"]),
    }
    made = plan("run|{bf16}|{optim}", space, env={"OPTIM": "{optim}!", "GPUS": "{gpus}"})
    call = made.fill({"bf16": True, "optim": "a b"}, GIVEN)
    assert call.words == ("run", "true", "a b")
    assert call.env == {"OPTIM": "a b!", "GPUS": "0,1"}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("{rte}", r"the placeholder {rte}, but there is no 'rte'. Did you mean 'rate'\?"),
        ("{rate * ratoi}", "there is no 'ratoi'"),
        ("{config}", "there is no configuration"),
    ],
)
def test_placeholders_that_mean_nothing(word: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(f"run|{{rate}}|{word}", {"rate": RATE})


# --- keys ---


def test_parameters_go_to_the_keys_of_their_names(file: SettingsFile) -> None:
    made = plan("run|{config}", {"rank": RANK, "training.lr": RATE}, file)
    assert made.fill({"rank": 4, "training.lr": 1e-3}, GIVEN).values == {
        "rank": 4,
        "training.lr": 1e-3,
    }


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("rate", 2e-5),
        ("rank * ratio", 12.0),
        ("{folder}/out", "/t/out"),
        ("trial", 7),
        ("3", 3),
        ("1e-3", 1e-3),
        ('"rate"', "rate"),
        ("true", True),
        ('{"a": [1]}', {"a": [1]}),
        (["x"], ["x"]),
        (2.5, 2.5),
    ],
)
def test_what_a_key_can_be_set_to(file: SettingsFile, given: Any, value: Any) -> None:
    space = {"rate": RATE, "rank": RANK, "ratio": RATIO}
    assign = {"training.lr": "rate", "+scale": "ratio", "+new": given}
    call = plan("run|{config}", space, file, assign).fill(
        {"rate": 2e-5, "rank": 8, "ratio": 1.5}, GIVEN
    )
    assert call.values["new"] == value and type(call.values["new"]) is type(value)


def test_an_integer_key_gets_integers(file: SettingsFile) -> None:
    space = {"rank": RANK, "ratio": RATIO}
    with pytest.raises(
        InputError, match=r"write round\(rank \* ratio\), or make the file's value 16.0"
    ):
        plan("run|{config}", space, file, {"alpha": "rank * ratio"})
    made = plan("run|{config}", space, file, {"alpha": "round(rank * ratio)"})
    assert made.fill({"rank": 5, "ratio": 1.5}, GIVEN).values == {"rank": 5, "alpha": 8}
    whole = plan(
        "run|{config}", space | {"ratio": IntDistribution(1, 4)}, file, {"alpha": "rank * ratio"}
    )
    value = whole.fill({"rank": 5, "ratio": 2}, GIVEN).values["alpha"]
    assert value == 10 and isinstance(value, int)


def test_a_list_key_gets_lists(file: SettingsFile) -> None:
    made = plan(
        "run|{config}", {"layers": CategoricalDistribution(["q_proj,v_proj", '["all"]'])}, file
    )
    assert made.fill({"layers": "q_proj,v_proj"}, GIVEN).values == {"layers": ["q_proj", "v_proj"]}
    assert made.fill({"layers": '["all"]'}, GIVEN).values == {"layers": ["all"]}


def test_a_float_key_gets_floats(file: SettingsFile) -> None:
    made = plan("run|{config}", {"training.lr": IntDistribution(1, 3)}, file)
    value = made.fill({"training.lr": 2}, GIVEN).values["training.lr"]
    assert value == 2.0 and isinstance(value, float)


@pytest.mark.parametrize(
    ("space", "assign", "message"),
    [
        ({"rnk": RANK}, {}, "parameter 'rnk' goes nowhere.*Did you mean 'rank'"),
        ({"lr": RATE}, {}, "It has 'training.lr'. Say where: --set KEY=lr"),
        (
            {"rank": RANK},
            {"optm": "rank"},
            r"no key 'optm'. Did you mean 'optim'\?.*--set '\+optm=rank'",
        ),
        ({"rank": RANK}, {"optim": "adam"}, "there is no 'adam'.*in double quotes"),
        ({"rank": RANK}, {"optim": "a b"}, "expected a parameter, arithmetic"),
        ({"rank": RANK}, {"optim": "rank"}, "holds 'adamw', which is no number"),
        ({"rank": RANK}, {"bf16": "rank"}, "holds True, which is no number"),
        ({"rank": RANK}, {"training": "rank"}, "holds a table: name the key in it"),
        ({"rank": RANK}, {"layers": "rank"}, "holds a list and would become"),
        ({"config": RANK}, {}, "the parameter 'config', but {config} is the trial's own"),
        (
            {"rank": RANK, "x": CategoricalDistribution(["a"])},
            {"alpha": "rank * x"},
            "only numbers",
        ),
        ({"rank": RANK, "x": RATIO}, {"+s": "sqrt(0 - x)"}, "no finite value"),
        (
            {"r": RANK, "x": RATIO},
            {"alpha": "round(r * x)"},
            "r and x are used in 1 computed value only",
        ),
        ({}, {}, "no parameters"),
    ],
)
def test_mistakes_are_found_before_the_first_trial(
    file: SettingsFile, space: dict[str, Any], assign: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan("run|{config}", space, file, assign)


def test_a_configuration_that_nobody_reads(file: SettingsFile) -> None:
    with pytest.raises(InputError, match="does not read its configuration"):
        plan("run", {"rank": RANK}, file)
    assert plan("run", {"rank": RANK}, file, env={"CONFIG": "{config}"})
    with pytest.raises(InputError, match="there is none: give"):
        plan("run|{rank}", {"rank": RANK}, None, {"x": "rank"})


def test_pairs() -> None:
    assert read_pairs(["a=b=c", " x = 1"], "--set") == {"a": "b=c", "x": " 1"}
    for wrong in (["a"], ["=b"], ["a=1", "a=2"]):
        with pytest.raises(InputError, match="--set"):
            read_pairs(wrong, "--set")
