from __future__ import annotations

from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from optuna_llmbo.command.defaults import Control
from optuna_llmbo.command.defaults import find_control
from optuna_llmbo.command.plan import Plan
from optuna_llmbo.command.settings_file import SettingsFile
from optuna_llmbo.errors import InputError


RANK = IntDistribution(4, 64)
RATIO = FloatDistribution(0.5, 4.0)


def control(
    folder: Path,
    text: str,
    space: dict[str, BaseDistribution],
    assign: dict[str, Any] | None = None,
    defaults: dict[str, Any] | None = None,
) -> Control:
    path = folder / "train.yaml"
    path.write_text(text)
    plan = Plan(["run", "{config}"], space, SettingsFile(path), assign or {}, {})
    return find_control(plan, defaults or {})


@pytest.mark.parametrize(
    ("text", "distribution", "value"),
    [
        ("x: 1e-4", FloatDistribution(1e-6, 1e-2, log=True), 1e-4),
        ("x: 2", FloatDistribution(0, 4), 2.0),
        ("x: 8", RANK, 8),
        ("x: 8.0", RANK, 8),
        ('x: "8"', RANK, 8),
        ("x: yes", CategoricalDistribution([True, False]), True),
        ("x: false", CategoricalDistribution([True, False]), False),
        ("x: cosine", CategoricalDistribution(["linear", "cosine"]), "cosine"),
        ("x: [q, v]", CategoricalDistribution(["q", "q,v"]), "q,v"),
        ("x: 1", CategoricalDistribution([True, 1]), 1),
        ("x: 6", IntDistribution(4, 64, step=2), 6),
    ],
)
def test_the_values_of_the_file(
    tmp_path: Path, text: str, distribution: BaseDistribution, value: Any
) -> None:
    params = control(tmp_path, text, {"x": distribution}).params
    assert params == {"x": value} and type(params["x"]) is type(value)


@pytest.mark.parametrize(
    ("text", "distribution", "reason"),
    [
        ("x: 128", RANK, "has x = 128, which is not in the space of 'x': 4 to 64"),
        ("x: 8.5", RANK, "has x = 8.5"),
        ("x: 5", IntDistribution(4, 64, step=2), "4 to 64 in steps of 2"),
        ("x:", RANK, "has x = None"),
        ("x: 1", CategoricalDistribution([True, False]), "has x = 1"),
        ("x: sgd", CategoricalDistribution(["adam", "lion"]), "adam, lion"),
    ],
)
def test_values_that_the_space_does_not_have(
    tmp_path: Path, text: str, distribution: BaseDistribution, reason: str
) -> None:
    found = control(tmp_path, text, {"x": distribution})
    assert found.params is None and len(found.reasons) == 1 and reason in found.reasons[0]


@pytest.mark.parametrize(
    ("expression", "alpha", "ratio"),
    [
        ("round(rank * ratio)", 16, 2.0),
        ("rank * ratio", 10.0, 1.25),
        ("rank * ratio", 8 * 1.2345, 1.2345),
        ("16 / ratio", 8.0, 2.0),
        ("rank ** ratio", 64.0, 2.0),
        ("ratio * 2 + rank", 16.0, 4.0),
    ],
)
def test_what_is_computed_is_solved(
    tmp_path: Path, expression: str, alpha: float, ratio: float
) -> None:
    found = control(
        tmp_path,
        f"rank: 8\nalpha: {alpha}",
        {"ratio": RATIO, "rank": RANK},
        {"alpha": expression},
    )
    assert found.params == {"ratio": pytest.approx(ratio, rel=1e-12), "rank": 8}


def test_integers_and_choices_are_solved(tmp_path: Path) -> None:
    for ratio in (IntDistribution(1, 4), CategoricalDistribution([1, 2, 4])):
        space: dict[str, BaseDistribution] = {"rank": RANK, "ratio": ratio}
        found = control(tmp_path, "rank: 8\nalpha: 32", space, {"alpha": "rank * ratio"})
        assert found.params == {"rank": 8, "ratio": 4}


def test_no_value_that_would_give_what_the_file_has(tmp_path: Path) -> None:
    found = control(
        tmp_path,
        "rank: 8\nalpha: 80",
        {"rank": RANK, "ratio": RATIO},
        {"alpha": "round(rank * ratio)"},
    )
    assert found.params is None and "no 'ratio' in the space makes alpha = 80" in found.reasons[0]


def test_what_the_user_says_goes_first(tmp_path: Path) -> None:
    space = {"rank": RANK, "ratio": RATIO}
    assign = {"+scale": "ratio"}
    assert control(tmp_path, "rank: 8", space, assign).reasons == (
        "nothing says which value 'ratio' has by default",
    )
    given = control(tmp_path, "rank: 8", space, assign, {"ratio": 1, "rank": 16})
    assert given.params == {"rank": 16, "ratio": 1.0}


def test_wrong_defaults(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no parameter 'rnk'. Did you mean 'rank'"):
        control(tmp_path, "rank: 8", {"rank": RANK}, defaults={"rnk": 4})
    with pytest.raises(InputError, match="rank=128 is not in the space, which has 4 to 64"):
        control(tmp_path, "rank: 8", {"rank": RANK}, defaults={"rank": 128})
