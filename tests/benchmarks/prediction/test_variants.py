from __future__ import annotations

from dataclasses import asdict
import re

import pytest

from benchmarks.prediction.variants import BASES
from benchmarks.prediction.variants import Question
from benchmarks.prediction.variants import QUESTIONS
from benchmarks.prediction.variants import TASKS
from benchmarks.prediction.variants import tasks_of
from benchmarks.prediction.variants import TEXT_TASKS
from benchmarks.prediction.variants import VARIANTS
from benchmarks.race import tasks
from optuna_llmbo.errors import InputError


TRAINING = {"train_token", "train_projection", "free"}


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_a_variant_differs_in_one_thing(question: Question) -> None:
    for base in question.bases:
        (default, first), *others = question.rows(base).items()
        assert (default, first) == (question.default, base)
        for _, name in others:
            pairs = zip(asdict(BASES[base]).items(), asdict(VARIANTS[name]).values(), strict=True)
            different = {key for (key, ours), theirs in pairs if ours != theirs}
            assert different and (len(different) == 1 or different <= TRAINING)


def test_names_are_file_names_and_each_variant_has_one() -> None:
    assert all(re.fullmatch(r"[a-z0-9.-]+", name) for name in VARIANTS)
    assert len(set(VARIANTS.values())) == len(VARIANTS)


def test_what_several_questions_ask_for_is_one_variant() -> None:
    questions = {question.name: question for question in QUESTIONS}
    assert questions["kernel"].rows("sum")["numeric"] == "numeric"
    derived = questions["derived"].rows("numeric")["hyperparameters"]
    assert questions["control"].rows("sum-underived")["nothing"] == derived


def test_tasks() -> None:
    found = tasks_of(["kernel", "lengthscale"])
    assert found["numeric"] == list(TASKS)
    assert found["sum"] == found["text"] == list(TEXT_TASKS)
    assert set(TASKS) <= set(tasks.TUNING)
    with pytest.raises(InputError, match="unknown question 'colour': expected derived, "):
        tasks_of(["kernel", "colour"])
