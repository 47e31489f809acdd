"""Whether a part of the data agrees with all of it."""

from __future__ import annotations

from collections.abc import Callable
import math
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.lora import proxy_agreement
from optuna_llmbo.lora import proxy_check
from optuna_llmbo.lora.fit import Fit
from optuna_llmbo.lora.proxy_agreement import Agreement
from optuna_llmbo.lora.proxy_agreement import ProxyCheck
from optuna_llmbo.lora.proxy_check import check_proxy


Make = Callable[..., LoRAObjective]
SPACE: dict[str, Any] = {
    "rank": IntDistribution(1, 8),
    "batch_size": IntDistribution(2, 12),
    "learning_rate": FloatDistribution(1e-4, 2e-2, log=True),
}
FULL = np.array([1.0, 2.0, 3.0, 4.0, 6.0, math.inf])
BASE = 5.0


def agreement(here: list[float], seconds: float = 1.0) -> Agreement:
    runs = [Fit(loss, seconds, 1, Path()) for loss in here]
    full = [Fit(loss, 4.0, 1, Path()) for loss in FULL]
    return proxy_check._agreement(0.1, 10, np.array(here), FULL, FULL < BASE, runs, full)


def test_the_same_order() -> None:
    same = agreement([2.0, 3.0, 4.0, 5.0, 5.5, math.inf])
    assert same.spearman == same.spearman_live == pytest.approx(1.0)
    assert same.pearson_live == pytest.approx(1.0) and same.pearson < 1.0
    assert same.regret == (0.0,) * 6
    assert same.saved == 0.75


def test_another_order() -> None:
    reversed_ = agreement([4.0, 3.0, 2.0, 1.0, 6.0, math.inf])
    assert reversed_.spearman_live == pytest.approx(-1.0)
    assert reversed_.spearman > 0  # what fails, fails here too: that says little
    assert reversed_.regret == (3.0, 2.0, 1.0, 0.0, 0.0, 0.0)


def test_what_is_not_defined_is_nan() -> None:
    assert math.isnan(agreement([1.0] * 6).spearman)


@pytest.mark.parametrize(
    ("live", "expected"),
    [
        ((0.9, 0.9, 0.9), 0.01),
        ((0.9, 0.5, 0.9), 0.3),
        ((0.5, 0.9, 0.8), 0.1),
        ((0.9, 0.9, 0.5), None),
        ((math.nan, 0.9, 0.9), 0.1),
    ],
)
def test_recommendation(live: tuple[float, ...], expected: float | None) -> None:
    agreements = tuple(
        Agreement(fraction, 1, 1, spearman, 1, 1, (0.0, 0.0, 0.0), 1, 0)
        for fraction, spearman in zip((0.01, 0.1, 0.3), live, strict=True)
    )
    check = ProxyCheck(({},), np.zeros((4, 1)), 1, agreements, BASE)
    assert check.recommended == expected
    words = "None of these" if expected is None else f"Recommended: {expected:g}"
    assert words in proxy_agreement.report(check)


def test_a_whole_check(make_objective: Make, tmp_path: Path) -> None:
    objective = make_objective(space=SPACE)
    told: list[str] = []
    options: dict[str, Any] = {"folder": tmp_path, "fractions": (0.5, 0.2), "n_configs": 4}
    check = check_proxy(objective, **options, tell=told.append)
    pool = objective.prepare().pool
    assert [a.fraction for a in check.agreements] == [0.2, 0.5]
    assert [a.n_examples for a in check.agreements] == [round(f * len(pool)) for f in (0.2, 0.5)]
    assert check.losses.shape == (3, 4) and len(told) == 12
    assert len({str(one) for one in check.params}) == 4
    assert max(one["batch_size"] for one in check.params) <= round(0.2 * len(pool))
    assert all(a.seconds > 0 and a.saved < 1 for a in check.agreements)
    again = check_proxy(objective, **options, tell=told.append)
    assert len(told) == 12 and np.array_equal(again.losses, check.losses)
    assert "| 0.2 | 11 |" in proxy_agreement.report(check)
    proxy_agreement.draw(check, tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").read_text().startswith("<?xml")


def test_bad_input(make_objective: Make, tmp_path: Path) -> None:
    objective = make_objective(space=SPACE)
    for options, message in (
        ({"fractions": (0.5, 1.0)}, "1.0 is not above 0 and below 1"),
        ({"fractions": (0.001,)}, "0.001 of 54 examples is less than one"),
        ({"n_configs": 3}, "n_configs must be an integer of at least 4"),
        ({"fractions": (0.02,)}, "have a batch of at most 1 examples"),
    ):
        with pytest.raises(InputError, match=message):
            check_proxy(objective, folder=tmp_path, **options)
    function = make_objective(space=lambda trial: {"rank": trial.suggest_int("rank", 1, 2)})
    with pytest.raises(InputError, match="has no points to spread"):
        check_proxy(function, folder=tmp_path)
