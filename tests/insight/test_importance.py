"""How much the model goes by which view."""

from __future__ import annotations

from collections.abc import Sized
from pathlib import Path

import pytest

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.insight import examine
from optuna_llmbo.insight.importance import Importance
from optuna_llmbo.suggestion import fitted
from tests.insight.studies import bowl
from tests.insight.studies import LORA
from tests.insight.studies import loss
from tests.insight.studies import PLANE
from tests.insight.studies import study_of


def importance_of(study: object, sampler: LLMBOSampler | None = None) -> Importance:
    found = examine(study, sampler).importance  # type: ignore[arg-type]
    assert found is not None
    return found


def test_the_only_view_is_all_that_counts() -> None:
    found = importance_of(study_of(PLANE, bowl, 9), LLMBOSampler(seed=0, knowledge=None))
    assert found.n_trials == (4, 5, 6, 7, 8, 9)
    assert list(found.shares) == ["hyperparameters"]
    # exchanging all that is known leaves a mean of its own variance, up to the sample's luck
    assert found.shares["hyperparameters"] == pytest.approx([1.0] * 6, abs=0.1)


def test_a_view_that_matters_and_one_that_does_not() -> None:
    """The loss is a function of a derived quantity alone."""
    found = importance_of(study_of(LORA, loss, 40))
    assert found.n_trials[0] == 4 and found.n_trials[-1] == 40 and len(found.n_trials) == 6
    assert found.shares["derived"][-1] > 0.5 > 0.25 > found.shares["hyperparameters"][-1]


def test_nothing_matters() -> None:
    found = importance_of(study_of(PLANE, lambda _: 1.0, 5))
    assert set(found.shares["hyperparameters"]) == {0.0}


@pytest.mark.long
def test_the_text_is_a_view(tiny_llm: Path) -> None:
    study = study_of(LORA, loss, 6)
    both = examine(study, LLMBOSampler(seed=0, llm=tiny_llm, kernel="sum", n_candidates=4))
    assert both.importance is not None and both.map is not None and both.map.has_text
    assert list(both.importance.shares) == ["hyperparameters", "derived", "text"]
    assert all(shares[-1] > 0 for shares in both.importance.shares.values())
    alone = examine(study, LLMBOSampler(seed=0, llm=tiny_llm, kernel="text", n_candidates=4))
    assert alone.importance is not None and list(alone.importance.shares) == ["text"]
    assert alone.importance.shares["text"][-1] == pytest.approx(1.0, abs=0.15)


def test_an_earlier_prefix_is_what_the_study_said_then() -> None:
    """But for the sample of configurations, which is another one after each trial. Fails if a
    prefix is fitted to all trials, or to the last ones."""
    whole = importance_of(study_of(LORA, loss, 12))
    for size in (4, 7):
        then = importance_of(study_of(LORA, loss, size))
        i = whole.n_trials.index(size)
        for name, shares in whole.shares.items():
            assert shares[i] == pytest.approx(then.shares[name][-1], abs=0.05)


def test_no_fit_is_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for the choice, which all parts ask, and one for each shorter prefix."""
    sizes = []
    fit = fitted.fit_surrogates  # type: ignore[attr-defined]

    def count(observed: object, targets: Sized, *rest: object) -> object:
        sizes.append(len(targets))
        return fit(observed, targets, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(fitted, "fit_surrogates", count)
    found = importance_of(study_of(PLANE, bowl, 6))
    assert sorted(sizes) == list(found.n_trials) == [4, 5, 6]
