"""What comes next, and why."""

from __future__ import annotations

import numpy as np
import pytest

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.insight import examine
from optuna_llmbo.insight.upcoming import Next
from tests.insight.studies import add
from tests.insight.studies import bowl
from tests.insight.studies import LORA
from tests.insight.studies import loss
from tests.insight.studies import PLANE
from tests.insight.studies import study_of


def upcoming(study: object, sampler: LLMBOSampler | None = None) -> Next:
    found = examine(study, sampler).next  # type: ignore[arg-type]
    assert found is not None
    return found


def test_it_is_what_the_sampler_would_choose() -> None:
    study = study_of(LORA, loss, 12)
    found = upcoming(study, LLMBOSampler(seed=3))
    study.sampler = LLMBOSampler(seed=3)
    trial = study.ask(LORA)
    assert trial.params == found.chosen.params
    attributes = study.trials[-1].user_attrs
    assert attributes["llmbo:mean"] == pytest.approx(found.chosen.expected.mean)
    assert attributes["llmbo:acquisition"] == pytest.approx(found.chosen.score)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_interval_and_the_neighbours(direction: str) -> None:
    sign = 1 if direction == "minimize" else -1
    study = study_of(PLANE, lambda params: sign * bowl(params), 15, direction)
    found = upcoming(study)
    chosen, best = found.chosen, study.best_trial
    assert chosen.expected.low < chosen.expected.mean < chosen.expected.high
    assert sign * (chosen.expected.low if sign > 0 else chosen.expected.high) < sign * best.value  # type: ignore[operator]
    assert chosen.nearest is not None and found.to_best is not None
    assert found.to_best.number == best.number
    assert found.to_best.correlation <= chosen.nearest.correlation + 1e-12  # may be the same
    assert chosen.nearest.correlation <= 1.0
    near = study.trials[chosen.nearest.number]
    expected = {n: (near.params[n], chosen.params[n]) for n in ("x", "y")}
    assert chosen.nearest.differences == expected
    assert f"{best.value:.4g}, of trial {best.number}" in found.text


def test_the_score_is_the_sum_of_its_terms() -> None:
    found = upcoming(study_of(LORA, loss, 12), LLMBOSampler(seed=0, cost_aware=True))
    candidates = [found.chosen, *found.runners_up]
    for one in candidates:
        assert sum(one.terms.values()) == pytest.approx(one.score)
        assert one.terms["prior"] != 0.0
    scores = [one.score for one in candidates]
    assert scores == sorted(scores, reverse=True) and len(candidates) == len(found.points)


def test_runners_up_are_other_ideas() -> None:
    found = upcoming(study_of(PLANE, bowl, 10))
    assert 2 <= len(found.runners_up) <= 4
    gaps = np.linalg.norm(found.points[:, None] - found.points[None], axis=2)
    assert gaps[np.triu_indices(len(gaps), 1)].min() > 0.02


def test_before_the_model_chooses() -> None:
    assert "3 more start-up trials" in upcoming(study_of(PLANE, bowl, 3)).text
    assert "start-up" not in upcoming(study_of(PLANE, bowl, 6)).text


def test_of_a_space_that_is_all_tried() -> None:
    """It would try the best one again, and says that it is just the same."""
    distributions = {"a": LORA["scheduler"]}
    study = study_of(distributions, lambda params: len(params["a"]), 0)
    for name in ("linear", "cosine", "constant"):
        add(study, {"a": name}, distributions, float(len(name)))
    found = upcoming(study)
    assert found.chosen.nearest is not None
    assert found.chosen.nearest.correlation == pytest.approx(1.0)
    assert found.chosen.nearest.differences == {}
