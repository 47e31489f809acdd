"""Which choices are alike to the model, what it expects of them, which are shown."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
import pytest

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.insight import choices
from optuna_llmbo.insight import examine
from optuna_llmbo.insight.choices import ChoiceMap
from optuna_llmbo.suggestion.fitted import FittedModel
from tests.insight.studies import add
from tests.insight.studies import bowl
from tests.insight.studies import LORA
from tests.insight.studies import loss
from tests.insight.studies import PLANE
from tests.insight.studies import study_of


COLOURS = ["red", "dark red", "light red", "blue", "dark blue", "light blue"]
PAINT: dict[str, BaseDistribution] = {
    "colour": CategoricalDistribution(COLOURS),
    "flag": CategoricalDistribution([True, False, None]),
    "x": FloatDistribution(0.0, 1.0),
}
NAMES = [f"number {i}" for i in range(300)]
MANY: dict[str, BaseDistribution] = {
    "name": CategoricalDistribution(NAMES),
    "x": FloatDistribution(0.0, 1.0),
}
BRANCHED: dict[str, BaseDistribution] = {
    "optimizer": CategoricalDistribution(["sgd", "adam"]),
    "rate": FloatDistribution(0.0, 1.0),
    "schedule": CategoricalDistribution(["linear", "cosine", "constant", "step"]),
    "beta": FloatDistribution(0.0, 1.0),
}


def paint(params: dict[str, Any]) -> float:
    return float(params["x"] ** 2 + ("blue" in params["colour"]))


def maps(study: optuna.Study, sampler: LLMBOSampler) -> dict[str, ChoiceMap]:
    found = examine(study, sampler).choices
    assert found is not None
    return {one.name: one for one in found}


def spots(found: ChoiceMap) -> np.ndarray:
    return np.array([(choice.x, choice.y) for choice in found.choices])


def branched() -> optuna.Study:
    """Where schedules are for "sgd" only, which is the worse one."""
    study = optuna.create_study()
    rng = np.random.default_rng(0)
    for i in range(16):
        params: dict[str, Any] = {"optimizer": "sgd", "rate": float(rng.random())}
        if i % 2:
            params |= {"optimizer": "adam", "beta": float(rng.random())}
        else:
            params |= {"schedule": ["linear", "cosine", "constant"][i % 3]}
        add(study, params, BRANCHED, (1 - i % 2) + params["rate"] ** 2)
    return study


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_mean_is_the_samplers_prediction(direction: str) -> None:
    sign = 1 if direction == "minimize" else -1
    study = study_of(LORA, lambda params: sign * loss(params), 14, direction)
    sampler = LLMBOSampler(seed=0, llm=None)
    (found,) = maps(study, sampler).values()
    recommended = sampler.recommend(study)
    assert (found.name, found.held) == ("scheduler", recommended.number)
    assert (found.n_choices, found.n_tried, found.n_left_out) == (3, 3, 0)
    assert {c.text for c in found.choices} == {"linear", "cosine", "constant"}
    for choice in found.choices:
        expected = sampler.predict(study, {**recommended.params, "scheduler": choice.text})
        assert choice.mean == pytest.approx(expected.mean, abs=1e-9)
        tried = [t for t in study.trials if t.params["scheduler"] == choice.text]
        assert choice.n_trials == len(tried)
        assert choice.is_held == (choice.text == recommended.params["scheduler"])
    worth = [-sign * choice.mean for choice in found.choices[1:]]
    assert found.choices[0].is_held and worth == sorted(worth, reverse=True)


def test_without_a_language_model_all_are_as_far_apart() -> None:
    found = maps(study_of(PAINT, paint, 12), LLMBOSampler(seed=0, llm=None))
    assert list(found) == ["colour", "flag"]
    for one in found.values():
        assert one.weight is None and one.reader is None and one.alike == ()
        assert one.share == pytest.approx(2 / (one.n_choices - 1))
        radii = np.linalg.norm(spots(one), axis=1)
        assert radii[0] > 0 and np.allclose(radii, radii[0])


def test_a_circle_is_a_pair_of_principal_axes() -> None:
    covariance = 0.3 + 1.2 * np.eye(7)
    axes, share = choices._spots(covariance)
    centred = covariance - covariance.mean(axis=0)
    centred -= centred.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(centred @ axes, 1.2 * axes, atol=1e-12)
    np.testing.assert_allclose((axes**2).sum(axis=0), 1.2)
    assert share == pytest.approx(np.trace(axes.T @ axes) / np.trace(centred))


def test_two_choices_and_choices_that_are_the_same() -> None:
    axes, share = choices._spots(np.array([[2.0, 1.0], [1.0, 2.0]]))
    assert share == pytest.approx(1.0) and np.linalg.norm(axes[0] - axes[1]) == pytest.approx(
        np.sqrt(2.0)
    )
    same, _ = choices._spots(np.ones((4, 4)))
    assert np.isfinite(same).all() and np.allclose(same, same[0], atol=1e-6)


def test_a_language_model_says_which_are_alike(tiny_llm: Path) -> None:
    found = maps(study_of(PAINT, paint, 12), LLMBOSampler(seed=0, llm=tiny_llm))
    colour, flag = found["colour"], found["flag"]
    assert colour.weight is not None and 0 < colour.weight < 1
    assert colour.reader is not None and tiny_llm.name in colour.reader
    assert (flag.weight, flag.reader, flag.alike) == (None, None, ())
    assert flag.share == pytest.approx(1.0)
    correlations = [pair.correlation for pair in colour.alike]
    assert len(correlations) == 3 and correlations == sorted(correlations, reverse=True)
    assert 1 > correlations[0] > correlations[2] > 0
    assert all(pair.one != pair.other for pair in colour.alike)
    places = {choice.text: np.array([choice.x, choice.y]) for choice in colour.choices}
    apart = [np.linalg.norm(a - b) for a, b in combinations(places.values(), 2)]
    near = [np.linalg.norm(places[pair.one] - places[pair.other]) for pair in colour.alike]
    assert np.mean(near) < 0.8 * np.mean(apart)


def test_the_weight_is_what_was_learned(tiny_llm: Path) -> None:
    study = study_of({**PAINT, "tone": CategoricalDistribution(COLOURS[::-1])}, paint, 12)
    sampler = LLMBOSampler(seed=0, llm=tiny_llm)

    def learned(model: FittedModel, _: np.ndarray) -> list[float]:
        parameters = dict(model.surrogates.parts[0].model.named_parameters())
        (raw,) = (value for name, value in parameters.items() if name.endswith("raw_weight"))
        return [1 / (1 + np.exp(-logit)) for logit in raw.tolist()]

    found = maps(study, sampler)
    assert list(found) == ["colour", "flag", "tone"] and found["flag"].weight is None
    of_colour, of_tone = sampler.ask(study, learned)
    assert abs(of_colour - of_tone) > 1e-3
    assert (found["colour"].weight, found["tone"].weight) == pytest.approx((of_colour, of_tone))


def test_without_nominal_parameters() -> None:
    insight = examine(study_of(PLANE, bowl, 6), LLMBOSampler(seed=0, llm=None))
    assert insight.choices == () and "choices" not in " ".join(insight.reasons)


def test_too_few_trials_to_ask_the_model() -> None:
    insight = examine(study_of(PAINT, paint, 2), LLMBOSampler(seed=0, llm=None))
    assert insight.choices is None and "needs 3 observed trials" in " ".join(insight.reasons)


def test_a_branch_that_is_not_recommended() -> None:
    study = branched()
    sampler = LLMBOSampler(seed=0, llm=None)
    found = maps(study, sampler)
    recommended = sampler.recommend(study)
    assert recommended.params["optimizer"] == "adam"
    optimizer, schedule = found["optimizer"], found["schedule"]
    assert optimizer.held == recommended.number
    means = {choice.text: choice.mean for choice in optimizer.choices}
    assert means["adam"] == pytest.approx(
        sampler.predict(study, recommended.params).mean, abs=1e-9
    )
    assert means["sgd"] > means["adam"]
    # the others are those of the best trial that has the parameter
    held = study.trials[schedule.held or 0]
    assert held.params["optimizer"] == "sgd"
    assert [c.n_trials for c in schedule.choices if c.text == "step"] == [0]
    assert sum(c.n_trials for c in schedule.choices) == 8 and schedule.n_tried == 3
    for choice in schedule.choices:
        expected = sampler.predict(study, {**held.params, "schedule": choice.text})
        assert choice.mean == pytest.approx(expected.mean, abs=1e-9)
        assert choice.is_held == (choice.text == held.params["schedule"])


def test_trials_to_hold_the_others_at_are_missing() -> None:
    study = optuna.create_study()
    for i in range(5):
        params = {"colour": COLOURS[i % 2], "flag": None, "x": i / 5}
        reports = {1: float(i), 2: i / 2}
        add(study, params, PAINT, None, TrialState.PRUNED, intermediate_values=reports)
    found = maps(study, LLMBOSampler(seed=0, llm=None))["colour"]
    assert found.held is None and not any(choice.is_held for choice in found.choices)
    assert np.isfinite([choice.mean for choice in found.choices]).all()
    assert [choice.n_trials > 0 for choice in found.choices] == [True] * 2 + [False] * 4


def test_three_hundred_choices() -> None:
    study = study_of(MANY, lambda p: float(p["name"][-1] == "7") + p["x"], 12)
    sampler = LLMBOSampler(seed=0, llm=None)
    found = maps(study, sampler)["name"]
    tried = {t.params["name"] for t in study.trials}
    assert (found.n_choices, len(found.choices), found.n_left_out) == (300, 200, 100)
    assert {c.text for c in found.choices[: len(tried)]} == tried
    assert all(c.n_trials == 0 for c in found.choices[len(tried) :])
    assert found.n_tried == len(tried)


def test_the_best_of_many_are_shown(tiny_llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(MANY, lambda p: float(p["name"][-1] == "7") + p["x"], 12)
    sampler = LLMBOSampler(seed=0, llm=tiny_llm)
    whole = {c.text: c.mean for c in examine_all(study, sampler, monkeypatch).choices}
    monkeypatch.setattr(choices, "MOST", 40)
    shown = maps(study, sampler)["name"].choices
    least = max(choice.mean for choice in shown if not choice.n_trials)
    left = [mean for text, mean in whole.items() if text not in {c.text for c in shown}]
    assert len(left) == 260 and least <= min(left) + 1e-9


def examine_all(
    study: optuna.Study, sampler: LLMBOSampler, monkeypatch: pytest.MonkeyPatch
) -> ChoiceMap:
    monkeypatch.setattr(choices, "MOST", 1000)
    found = maps(study, sampler)["name"]
    assert len(found.choices) == 300
    return found


def test_whole_configurations_are_read_for_few(
    tiny_llm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "MOST", 6)
    few = {**MANY, "name": CategoricalDistribution(NAMES[:20])}
    study = optuna.create_study()
    for i in (3, 3, 9, 12):
        add(study, {"name": NAMES[i], "x": i / 20}, few, i / 10)
    sampler = LLMBOSampler(seed=0, llm=tiny_llm, kernel="text", n_candidates=4)
    found = maps(study, sampler)["name"]
    assert {c.text for c in found.choices} == {NAMES[i] for i in (3, 9, 12, 0, 1, 2)}
    assert found.weight is None and found.reader is None and found.n_left_out == 14


def test_texts_are_whole_and_values_are_told_apart() -> None:
    long = "Say it\n" + "again and " * 50 + "<b>again</b> & again"
    mixed = {**PLANE, "any": CategoricalDistribution([True, 1, "1", None, 0.5, long])}
    study = optuna.create_study()
    for i, value in enumerate([True, 1, 1, "1", None, long]):
        add(study, {"x": i / 6, "y": 0.5, "any": value}, mixed, float(i))
    found = maps(study, LLMBOSampler(seed=0, llm=None))["any"]
    counts = [(choice.text, choice.n_trials) for choice in found.choices]
    assert sorted(counts) == sorted(
        [("True", 1), ("1", 2), ("1", 1), ("None", 1), ("0.5", 0), (long, 1)]
    )
