"""Predicted against observed."""

from __future__ import annotations

import math

import optuna
from optuna.trial import TrialState
import pytest
from scipy.stats import norm

from optuna_llmbo.insight.calibration import Calibration
from optuna_llmbo.insight.calibration import calibration_of
from tests.insight.studies import add
from tests.insight.studies import PLANE


def calibration(scale: float, n: int = 100) -> Calibration:
    """Of trials whose errors are a standard normal's quantiles, times `scale`."""
    study = optuna.create_study()
    for i in range(n):
        attributes = {"llmbo:mean": 2.0, "llmbo:deviation": 0.5, "llmbo:path": "model"}
        value = 2.0 + 0.5 * scale * float(norm.ppf((i + 0.5) / n))
        add(study, {"x": 0.1, "y": 0.2}, PLANE, value, user_attrs=attributes)
    found = calibration_of(study.trials)
    assert found is not None and len(found.trials) == n
    return found


def test_exact_coverage() -> None:
    inner, outer = calibration(1.0).coverages
    assert (inner.level, inner.share) == (0.68, 0.68)
    assert (outer.level, outer.share) == (0.95, pytest.approx(0.95, abs=0.011))  # type: ignore[comparison-overlap]
    assert inner.is_plausible and outer.is_plausible
    # of 100 independent trials, 58 to 77 lie in the 68% interval: binomial quantiles
    assert (inner.low, inner.high) == (pytest.approx(0.585, abs=0.01), pytest.approx(0.77))  # type: ignore[comparison-overlap]


def test_on_which_side_the_others_ended() -> None:
    study = optuna.create_study()
    for value in (2.0, 2.9, 3.5, 9.0, 0.5, -9.0, 7.0):  # the 95% interval is 1.02 to 2.98
        said = {"llmbo:mean": 2.0, "llmbo:deviation": 0.5, "llmbo:path": "model"}
        add(study, {"x": 0.1, "y": 0.2}, PLANE, value, user_attrs=said)
    found = calibration_of(study.trials)
    assert found is not None
    inner, outer = found.coverages
    assert (inner.inside, inner.below, inner.above) == (1, 2, 4)
    assert (outer.inside, outer.below, outer.above) == (2, 2, 3)
    assert outer.share == pytest.approx(2 / 7)


@pytest.mark.parametrize("scale", [3.0, 0.2])
def test_too_sure_and_not_sure_enough(scale: float) -> None:
    inner, outer = calibration(scale).coverages
    assert not inner.is_plausible
    assert (inner.share < 0.4) == (scale > 1) and (outer.share < 0.8) == (scale > 1)


def test_only_trials_that_say_what_was_expected() -> None:
    study = optuna.create_study()
    here = {"x": 0.1, "y": 0.2}
    said = {"llmbo:mean": 2.0, "llmbo:deviation": 0.5}
    add(study, here, PLANE, 1.0)
    add(study, here, PLANE, math.inf, user_attrs=said)
    add(study, here, PLANE, 1.0, user_attrs={"llmbo:mean": [2.0, 1.0], "llmbo:deviation": [1, 1]})
    add(study, here, PLANE, 1.0, user_attrs={"llmbo:mean": None, "llmbo:deviation": 0.5})
    stopped = {0: 1.0}
    add(study, here, PLANE, None, TrialState.PRUNED, intermediate_values=stopped, user_attrs=said)
    add(study, here, PLANE, None, TrialState.FAIL, user_attrs=said)
    assert calibration_of(study.trials) is None
    add(study, here, PLANE, 1.0, user_attrs=said)
    found = calibration_of(study.trials)
    assert found is not None and [p.trial.number for p in found.trials] == [6]
    assert found.trials[0].observed == 1.0
