from __future__ import annotations

from pathlib import Path

from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import space as spaces
from optuna_llmbo.lora.recipe import DEFAULT
from optuna_llmbo.space.space_file import read_space


WHOLE = """
[rank]
type = "int"
low = 1
high = 64
log = true

[learning_rate]
type = "float"
low = 1e-5
high = 1e-2
log = true

[lora_dropout]
type = "float"
low = 0
high = 0.3
step = 0.1

[batch_size]
type = "int"
low = 4
high = 16
step = 4

[target_modules]
type = "categorical"
choices = ["all-linear", "attention"]
"""

DISTRIBUTIONS = {
    "rank": IntDistribution(1, 64, log=True),
    "learning_rate": FloatDistribution(1e-5, 1e-2, log=True),
    "lora_dropout": FloatDistribution(0.0, 0.3, step=0.1),
    "batch_size": IntDistribution(4, 16, step=4),
    "target_modules": CategoricalDistribution(["all-linear", "attention"]),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "space.toml"


def test_every_kind_in_the_order_of_the_file(file: Path) -> None:
    file.write_text(WHOLE)
    assert list(read_space(file).items()) == list(DISTRIBUTIONS.items())
    assert read_space(str(file)) == DISTRIBUTIONS


def test_a_path_is_a_space(file: Path) -> None:
    file.write_text(WHOLE)
    for path in (file, str(file)):
        checked = spaces.check(path, n_examples=64, defaults=DEFAULT)
        assert checked.distributions == DISTRIBUTIONS
        assert checked.default_params is not None
        assert checked.default_params["rank"] == 16


def test_values_of_a_file_are_checked_as_others_are(file: Path) -> None:
    file.write_text('[rank]\ntype = "int"\nlow = 0\nhigh = 4\n')
    with pytest.raises(InputError, match=r"space\['rank'\] .* admits rank=0"):
        spaces.check(file, n_examples=64, defaults=DEFAULT)
    file.write_text('[depth]\ntype = "int"\nlow = 1\nhigh = 4\n')
    with pytest.raises(InputError, match="depth"):
        spaces.check(file, n_examples=64, defaults=DEFAULT)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("low = 1\nhigh = 2", "has no 'type': add it"),
        ('type = "integer"', "type is 'integer': expected one of int, float, categorical"),
        ("type = 3", "type is 3: expected one of"),
        ("type = []", r"type is \[\]: expected one of"),
        ('type = "int"\nhigh = 2', "has no 'low': add it"),
        ('type = "int"\nlow = 2', "has no 'high': add it"),
        (
            'type = "int"\nlow = 1\nhigh = 2\nlogarithmic = true',
            "unknown key 'logarithmic': with type = 'int' it can have type, low, high, log, step",
        ),
        ('type = "int"\nlow = 1\nhigh = 2\nchoices = [1]', "unknown key 'choices'"),
        ('type = "int"\nlow = 1.0\nhigh = 2', "low is 1.0: expected an integer"),
        ('type = "int"\nlow = true\nhigh = 2', "low is True: expected an integer"),
        ('type = "int"\nlow = 1\nhigh = "2"', "high is '2': expected an integer"),
        ('type = "int"\nlow = 1\nhigh = 2\nstep = 0.5', "step is 0.5: expected an integer"),
        ('type = "float"\nlow = nan\nhigh = 2', "low is nan: expected a finite number"),
        ('type = "float"\nlow = 1\nhigh = inf', "high is inf: expected a finite number"),
        (f'type = "float"\nlow = 1\nhigh = 1{"0" * 400}', "expected a finite number"),
        ('type = "float"\nlow = 1\nhigh = 2\nlog = 1', "log is 1: expected true or false"),
        ('type = "int"\nlow = 3\nhigh = 2', "low = 3 is above high = 2: exchange them"),
        ('type = "int"\nlow = 0\nhigh = 2\nlog = true', "a logarithmic range starts above 0"),
        ('type = "float"\nlow = -1\nhigh = 2\nlog = true', "low = -1 with log = true"),
        ('type = "int"\nlow = 1\nhigh = 3\nlog = true\nstep = 2', "has no steps"),
        ('type = "int"\nlow = 1\nhigh = 3\nstep = 0', "step = 0: expected a number above 0"),
        ('type = "int"\nlow = 1\nhigh = 4\nstep = 2', "high = 4 is no whole number of steps of 2"),
        ('type = "float"\nlow = 0\nhigh = 0.35\nstep = 0.1', "high = 0.35 is no whole number"),
        ('type = "categorical"', "has no 'choices'"),
        ('type = "categorical"\nchoices = []', "at least one"),
        ('type = "categorical"\nchoices = "lora"', "choices is 'lora': expected a list"),
        ('type = "categorical"\nchoices = [[1]]', r"choices is \[\[1\]\]: expected a list"),
        ('type = "categorical"\nchoices = ["a", "b", "a"]', "has the choice 'a' more than once"),
        ('type = "categorical"\nchoices = ["a"]\nlow = 1', "it can have type, choices"),
    ],
)
def test_mistakes_name_the_file_and_the_table(file: Path, table: str, message: str) -> None:
    file.write_text(f'[fine]\ntype = "int"\nlow = 1\nhigh = 2\n[rank]\n{table}\n')
    with pytest.raises(InputError, match=rf"space\.toml: \[rank\].*{message}"):
        read_space(file)


def test_files_that_hold_no_space(file: Path) -> None:
    with pytest.raises(InputError, match="space.toml' cannot be read .No such file .*TOML file"):
        read_space(file)
    file.write_text("[rank\n")
    with pytest.raises(InputError, match="space.toml' is not valid TOML: .*line 1"):
        read_space(file)
    file.write_text("")
    with pytest.raises(InputError, match="space.toml' has no tables"):
        read_space(file)
    file.write_text("rank = 3\n")
    with pytest.raises(InputError, match=r"space.toml: \[rank\] is 3: expected a table"):
        read_space(file)
