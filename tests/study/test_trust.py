"""The course of the trust, and from which trial on knowledge is overruled."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.trial import create_trial
import pytest

from optuna_llmbo.study.trial_attributes import TRUST
from optuna_llmbo.study.trial_facts import trial_facts
from optuna_llmbo.study.trust import trust_course
from optuna_llmbo.study.trust import TrustCourse


def course(*told: Any) -> TrustCourse | None:
    """Of trials that say so; None for those that say nothing."""
    study = optuna.create_study()
    for one in told:
        study.add_trial(create_trial(value=1.0, user_attrs={} if one is None else {TRUST: one}))
    return trust_course([trial_facts(trial) for trial in study.trials])


@pytest.mark.parametrize(
    ("told", "since"),
    [
        ([None, None, 0.6, 0.9], None),
        ([None, None, 0.6, 0.2, 0.1], 3),
        ([None, 0.2, 0.3, 0.2, None, 0.1], 3),  # once more believed, then not; one says nothing
        ([0.1, 0.24], 0),
        ([0.1, 0.1, 0.25], None),  # not below it
    ],
)
def test_overruled_from(told: list[float | None], since: int | None) -> None:
    found = course(*told)
    assert found is not None and found.overruled_from == since
    assert found.values == tuple(one for one in told if one is not None)
    assert found.latest == found.values[-1] == told[-1]


@pytest.mark.parametrize("told", [None, "?", [0.5, 0.5], float("nan")])
def test_trials_that_say_nothing(told: object) -> None:
    assert course(None, told) is None
    found = course(told, 0.5)
    assert found is not None and [one.number for one in found.trials] == [1]
