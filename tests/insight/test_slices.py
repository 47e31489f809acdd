"""What the model says of each hyperparameter alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import TrialState
import pytest

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.insight import examine
from tests.insight.studies import add
from tests.insight.studies import LORA
from tests.insight.studies import loss
from tests.insight.studies import study_of


BRANCHED: dict[str, BaseDistribution] = {
    "optimizer": CategoricalDistribution(["sgd", "adam"]),
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "momentum": FloatDistribution(0.0, 1.0),
    "beta": FloatDistribution(0.0, 1.0),
}


def branched() -> optuna.Study:
    study = optuna.create_study()
    rng = np.random.default_rng(0)
    for i in range(16):
        name, own = ("sgd", "momentum") if i % 2 else ("adam", "beta")
        params: dict[str, Any] = {"optimizer": name, "rate": float(10 ** rng.uniform(-4, 0))}
        params[own] = float(rng.random())
        add(study, params, BRANCHED, i % 2 + params[own] + (np.log10(params["rate"]) + 2) ** 2)
    return study


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_mean_is_the_samplers_prediction(direction: str) -> None:
    sign = 1 if direction == "minimize" else -1
    study = study_of(LORA, lambda params: sign * loss(params), 14, direction)
    sampler = LLMBOSampler(seed=0)
    found = examine(study, sampler).slices
    recommended = sampler.recommend(study)
    assert found is not None
    assert found.number == recommended.number and found.params == recommended.params
    assert [s.name for s in found.slices] == sorted(LORA)
    for one in found.slices:
        i = len(one.values) // 3
        expected = sampler.predict(study, {**recommended.params, one.name: one.values[i]})
        assert one.mean[i] == pytest.approx(expected.mean, abs=1e-9)
        assert (one.low[i], one.high[i]) == pytest.approx((expected.low, expected.high), abs=1e-9)
        assert all(low <= high for low, high in zip(one.low, one.high, strict=True))


def test_kinds_and_places() -> None:
    study = study_of(LORA, loss, 8)
    found = examine(study, LLMBOSampler(seed=0)).slices
    assert found is not None
    slices = {s.name: s for s in found.slices}
    rate, rank, scheduler = (slices[n] for n in ("learning_rate", "rank", "scheduler"))
    assert (rate.kind, rate.log, len(rate.values)) == ("float", True, 33)
    assert (rate.values[0], rate.values[-1]) == pytest.approx((1e-5, 1e-2))
    assert np.allclose(np.diff(np.log(rate.values)), np.log(1e3) / 32)
    assert (rank.kind, rank.log) == ("int", True) and not slices["dropout"].log
    assert all(isinstance(value, int) for value in rank.values)
    assert len(set(rank.values)) == len(rank.values) and rank.values[-1] == 64
    assert scheduler.kind == "choice" and scheduler.values == ("linear", "cosine", "constant")
    assert scheduler.held == found.params["scheduler"]


def test_only_the_recommended_branch() -> None:
    study = branched()
    sampler = LLMBOSampler(seed=0)
    found = examine(study, sampler).slices
    assert found is not None
    recommended = sampler.recommend(study).params
    assert recommended["optimizer"] == "adam"
    assert [s.name for s in found.slices] == ["beta", "optimizer", "rate"]
    slices = {s.name: s for s in found.slices}
    assert {t.params["optimizer"] for t in slices["beta"].trials} == {"adam"}
    i = slices["optimizer"].values.index("sgd")
    other = {"optimizer": "sgd", "rate": recommended["rate"], "momentum": 0.5}
    expected = sampler.predict(study, other)
    assert slices["optimizer"].mean[i] == pytest.approx(expected.mean, abs=1e-9)
    own = slices["optimizer"].values.index("adam")
    assert slices["optimizer"].mean[own] == pytest.approx(
        sampler.predict(study, recommended).mean, abs=1e-9
    )


def test_trials_are_those_with_a_finite_value() -> None:
    study = study_of(LORA, loss, 6)
    here = dict(study.trials[0].params)
    add(study, here, LORA, float("inf"))
    add(study, here, LORA, None, TrialState.FAIL)
    add(study, here, LORA, None, TrialState.PRUNED, intermediate_values={1: 2.0})
    found = examine(study, LLMBOSampler(seed=0)).slices
    assert found is not None
    assert [t.number for t in found.slices[0].trials] == [0, 1, 2, 3, 4, 5, 8]
    assert np.isfinite([s.mean for s in found.slices if s.kind == "float"]).all()


def test_a_parameter_with_few_values_has_all_of_them() -> None:
    distributions = {"x": IntDistribution(1, 9, step=2), "y": FloatDistribution(0, 1)}
    study = study_of(distributions, lambda params: params["x"] + params["y"], 6)
    found = examine(study, LLMBOSampler(seed=0)).slices
    assert found is not None and found.slices[0].values == (1, 3, 5, 7, 9)
