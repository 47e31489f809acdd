from __future__ import annotations

import pytest
import torch

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import tokens
from optuna_llmbo.lora.metrics import MultipleChoice
from optuna_llmbo.lora.records import Pair
from optuna_llmbo.lora.tokens import Example


CHOICES = ["red", "a much longer answer", "blue", "re"]


@pytest.fixture
def questions(tiny: LanguageModel) -> list[Example]:
    pairs = [Pair(f"question {i}" + "?" * (i % 4), CHOICES[i % 4]) for i in range(16)]
    return tokens.encode(pairs, tiny.tokenizer, 512)


def log_likelihood(loaded: LanguageModel, example: Example, choice: str) -> tuple[float, int]:
    """Of one choice and the end behind a prompt, alone, from the full logits; and its tokens."""
    behind = [*loaded.tokenizer(choice).input_ids, loaded.tokenizer.eos_token_id]
    ids = [*example.ids[: example.n_prompt].tolist(), *behind]
    with torch.no_grad():
        logs = loaded.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    first = example.n_prompt
    return sum(float(logs[first + i - 1, t]) for i, t in enumerate(behind)), len(behind)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
@pytest.mark.parametrize("score", ["mean", "sum"])
def test_accuracy(
    tiny: LanguageModel, questions: list[Example], score: str, batch_size: int
) -> None:
    right = 0
    for example in questions:
        scores = []
        for choice in CHOICES:
            total, count = log_likelihood(tiny, example, choice)
            scores.append(total / count if score == "mean" else total)
        right += CHOICES[scores.index(max(scores))] == example.record.response
    metric = MultipleChoice(CHOICES, score, batch_size)
    assert metric(tiny.model, tiny.tokenizer, questions) == right / len(questions)


def test_the_likeliest_choice_of_each_example(
    tiny: LanguageModel, questions: list[Example]
) -> None:
    """Responses that are the model's own choices are all right, and the others all wrong."""
    for score in ("mean", "sum"):
        mine, others = [], []  # type: ignore[var-annotated]
        for i, example in enumerate(questions):
            offered = [f"choice {i}", "x" * (i % 5 + 1), "why"]
            scores = [log_likelihood(tiny, example, choice) for choice in offered]
            values = [total / (count if score == "mean" else 1) for total, count in scores]
            best = values.index(max(values))
            for into, answer in ((mine, best), (others, best - 1)):
                pair = Pair(example.record.prompt, f" {offered[answer]}\n")
                into.append(Example(pair, example.ids, example.n_prompt))

        def choices(example: Example) -> list[str]:
            i = int(example.record.prompt.strip("?").split()[1])
            return [f"choice {i}", "x" * (i % 5 + 1), "why"]

        metric = MultipleChoice(choices, score)
        assert metric(tiny.model, tiny.tokenizer, mine) == 1.0
        assert metric(tiny.model, tiny.tokenizer, others) == 0.0


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (["red"], "at least two, all different"),
        (["red", "blue", "red "], "at least two, all different"),
        (["red", "green"], "without the response 'a much longer answer'"),
        (["red", "a" * 5000, *CHOICES], "tokens, more than the 2048"),
    ],
)
def test_impossible_choices(
    tiny: LanguageModel, questions: list[Example], choices: list[str], message: str
) -> None:
    distinct = choices[:2] + CHOICES[1:] if len(choices) > 4 else choices
    for call in (MultipleChoice(distinct).check, MultipleChoice(distinct)):
        with pytest.raises(InputError, match=message):
            call(tiny.model, tiny.tokenizer, questions)


def test_impossible_settings() -> None:
    with pytest.raises(InputError, match="expected a list of texts, got one text"):
        MultipleChoice("abc")
    with pytest.raises(InputError, match="score must be one of mean, sum; got 'max'"):
        MultipleChoice(CHOICES, "max")
