from __future__ import annotations

import sys

import numpy as np
import pytest

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.generate import Decoding
from optuna_llmbo.lora.metrics import Overlap
from optuna_llmbo.lora.records import Pair
from optuna_llmbo.lora.tokens import Example
from tests.lora.metrics.conftest import Tell


FEW = Decoding(max_new_tokens=4, batch_size=2)
RESPONSES = ["the cat sat on the mat", "a dog barked at the moon tonight"]
ANSWERS = ["the cat sat on a mat", "the dog barked at a moon tonight"]

# BLEU by hand (Papineni et al. 2002, eq. 1-3): 12 of 13 words match, 6 of 11 pairs, 3 of 9, 1 of 7
BLEU = 100 * (12 / 13 * 6 / 11 * 3 / 9 * 1 / 7) ** 0.25


def test_bleu(tiny: LanguageModel, tell: Tell) -> None:
    pytest.importorskip("sacrebleu")
    examples = tell(list(zip(RESPONSES, ANSWERS, strict=True)))
    score = Overlap("bleu", FEW)(tiny.model, tiny.tokenizer, examples)
    assert score == pytest.approx(BLEU)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ("rouge1", (5 / 6 + 7 / 7) / 2),  # words in common, of 6 and of 7 on both sides
        ("rouge2", (3 / 5 + 3 / 6) / 2),
        ("rougeL", (5 / 6 + 5 / 7) / 2),
    ],
)
def test_rouge(score: str, expected: float, tiny: LanguageModel, tell: Tell) -> None:
    pytest.importorskip("rouge_score")
    examples = tell(list(zip(RESPONSES, ANSWERS, strict=True)))
    metric = Overlap(score, FEW)
    assert metric(tiny.model, tiny.tokenizer, examples) == pytest.approx(expected)
    assert metric.name == score and metric.direction == "maximize"


def chrf(answers: list[str], responses: list[str]) -> float:
    """Popovic 2015: F2 of the mean precision and recall of character 1- to 6-grams, no spaces."""
    precision = recall = 0.0
    for n in range(1, 7):
        found = wanted = common = 0
        for answer, response in zip(answers, responses, strict=True):
            a, r = (text.replace(" ", "") for text in (answer, response))
            grams = [a[i : i + n] for i in range(len(a) - n + 1)]
            rest = [r[i : i + n] for i in range(len(r) - n + 1)]
            found, wanted = found + len(grams), wanted + len(rest)
            for gram in grams:
                if gram in rest:
                    rest.remove(gram)
                    common += 1
        precision, recall = precision + common / found / 6, recall + common / wanted / 6
    return 100 * 5 * precision * recall / (4 * precision + recall)


def given(responses: list[str]) -> list[Example]:
    """Examples with these responses, whose tokens nobody reads."""
    return [Example(Pair("?", response), np.zeros(2, np.int32), 1) for response in responses]


def test_chrf() -> None:
    pytest.importorskip("sacrebleu")
    assert Overlap("chrf").of_texts(ANSWERS, given(RESPONSES)) == pytest.approx(
        chrf(ANSWERS, RESPONSES)
    )


@pytest.mark.parametrize(("score", "best"), [("bleu", 100), ("chrf", 100), ("rougeL", 1)])
def test_the_best_and_the_worst(score: str, best: float) -> None:
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    assert Overlap(score).of_texts(RESPONSES, given(RESPONSES)) == pytest.approx(best)
    assert Overlap(score).of_texts(["", ""], given(RESPONSES)) == 0


def test_libraries_are_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(InputError, match=r"'chrf' needs sacrebleu.*optuna-llmbo\[metrics\]"):
        Overlap("chrf")
    with pytest.raises(InputError, match="'rougeL' needs rouge-score"):
        Overlap()


def test_unknown_scores() -> None:
    with pytest.raises(InputError, match="score must be one of bleu, chrf, .*; got 'meteor'"):
        Overlap("meteor")
