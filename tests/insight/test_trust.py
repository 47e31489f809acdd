"""What was expected, how far it is trusted, and what is said of it."""

from __future__ import annotations

import math

import optuna
import pytest

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.insight import examine
from optuna_llmbo.insight import Insight
from optuna_llmbo.insight.trust import GIVEN
from optuna_llmbo.insight.trust import Trust
from tests.insight.studies import bowl
from tests.insight.studies import study_of_trust


pytestmark = pytest.mark.usefixtures("small_pool")


def found(insight: Insight) -> Trust:
    assert insight.trust is not None
    return insight.trust


@pytest.mark.parametrize("rate", [3e-4, 3e-2], ids=["right", "wrong"])
def test_a_whole_study(rate: float) -> None:
    """The pack for LoRA expects 1e-4 to 1.5e-3; the best rate is there, or far from there."""

    def loss(trial: optuna.Trial) -> float:
        rank = trial.suggest_int("rank", 4, 64, log=True)
        tried = trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
        return math.log10(tried / rate) ** 2 + 0.05 * abs(math.log2(rank / 32))

    study = optuna.create_study(sampler=LLMBOSampler(seed=0))
    study.optimize(loss, n_trials=14)
    trust = found(examine(study))
    assert [one.number for one in trust.course.trials] == list(range(6, 14))
    assert trust.before == 0.75 and trust.expected is not None
    assert trust.expected.sources == ("lora",)
    ranges = {one.name: one for one in trust.expected.ranges}
    assert (ranges["learning_rate"].low, ranges["learning_rate"].high) == (1e-4, 1.5e-3)
    assert ranges["learning_rate"].best == study.best_params["learning_rate"]
    is_right = rate < 1e-3
    assert ranges["learning_rate"].holds_the_best is is_right
    since = trust.course.overruled_from
    assert (trust.course.latest > 0.5) == (since is None) == is_right
    assert since is None or 6 <= since <= 13
    assert trust.title == "Knowledge (lora)"
    if is_right:
        assert "overruled" not in trust.text and "Good values are expected at" in trust.text
    else:
        assert f"overruled from trial {since} on: the trials are better" in trust.text
        assert "The best trial lies outside in learning_rate." in trust.text
    assert "learning_rate 1e-4 to 1.5e-3, rank 8 to 64" in trust.text


def test_nothing_expected_nothing_said() -> None:
    sampler = LLMBOSampler(seed=0, knowledge=None, n_startup_trials=3)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda t: bowl({n: t.suggest_float(n, 0, 1) for n in "xy"}), n_trials=5)
    assert examine(study).trust is None


def test_the_prior_that_the_asked_sampler_was_given() -> None:
    study = study_of_trust(0.6, 0.2, 0.1)
    sampler = LLMBOSampler(seed=0, prior={"x": (0.7, 0.9), "elsewhere": (0.0, 1.0)})
    trust = found(examine(study, sampler))
    assert trust.title == f"Knowledge ({GIVEN})"
    assert trust.text == (
        "trusted 0.10 at trial 5, 0.75 before the first; overruled from trial 4 on: the trials "
        "are better explained without expecting good values at x 0.7 to 0.9. The best trial lies "
        "outside in x."
    )
    (inside,) = found(
        examine(study, LLMBOSampler(seed=0, prior={"x": (0.0, 0.9)}))
    ).expected.ranges  # type: ignore[union-attr]
    assert inside.holds_the_best is True


def test_a_sampler_that_expects_nothing_is_asked() -> None:
    trust = found(examine(study_of_trust(0.6, 0.875)))
    assert trust.expected is None and trust.title == "Knowledge"
    assert trust.text == "trusted 0.88 at trial 4, 0.75 before the first."


def test_several_objectives() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    trial = optuna.trial.create_trial(values=[1.0, 2.0], user_attrs={"llmbo:trust": 0.5})
    study.add_trial(trial)
    assert found(examine(study)).course.latest == 0.5
