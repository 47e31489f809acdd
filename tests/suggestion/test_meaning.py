from __future__ import annotations

from pathlib import Path

import pytest

from optuna_llmbo.embedding.encoder import Encoder
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.suggestion import meaning
from optuna_llmbo.suggestion.meaning import Meaning
from optuna_llmbo.suggestion.meaning import n_trained_on
from optuna_llmbo.surrogate.choice_view import ChoiceView
from optuna_llmbo.surrogate.choice_view import ChoiceViews


def test_the_token_is_trained_whenever_trials_have_doubled() -> None:
    expected = {0: 0, 9: 0, 10: 10, 19: 10, 20: 20, 39: 20, 40: 40, 79: 40, 80: 80, 1000: 640}
    assert {n: n_trained_on(n) for n in expected} == expected
    assert all(n_trained_on(n) <= n_trained_on(n + 1) <= n + 1 for n in range(400))


@pytest.fixture
def found(tiny_llm: Path) -> Meaning:
    encoder = Encoder(load_model(resolve_source(tiny_llm)), "Choice:")
    view = ChoiceView.neutral(encoder.read([(word,) for word in ("one", "two", "three")]))
    return Meaning((None, view), encoder.has_token)


def test_what_was_trained_once_is_remembered(found: Meaning) -> None:
    trained: list[ChoiceViews] = []

    def train() -> ChoiceViews:
        trained.append(ChoiceViews(found.views, found.neutral.token + len(trained) + 1))
        return trained[-1]

    assert found.at(b"ten trials", train) is found.at(b"ten trials", train) is trained[0]
    assert found.at(b"other ten trials", train) is trained[1]
    for i in range(meaning._MOST_REMEMBERED):
        found.at(str(i).encode(), train)
    assert len(found.trained) == meaning._MOST_REMEMBERED
    n = len(trained)
    found.at(b"ten trials", train)  # the oldest is forgotten
    assert len(trained) == n + 1


def test_many_choices_are_not_placed_anew(found: Meaning, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found.is_trainable
    assert not Meaning(found.views, has_token=False).is_trainable
    monkeypatch.setattr(meaning, "_MOST_CHOICES", 2)
    assert not found.is_trainable
