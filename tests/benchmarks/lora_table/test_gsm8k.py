from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
import torch

from benchmarks.lora_table import gsm8k
from benchmarks.lora_table.tiers import tier
from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import tokens
from optuna_llmbo.lora.records import Pair
from optuna_llmbo.lora.tokens import Example


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So 2+2=4.\n#### 4", "4"),
        ("#### 1,234,567", "1234567"),
        ("#### -3.5 dollars", "-3.5"),
        ("####7\n#### 8", "7"),
        ("#### .5", ".5"),
        ("the answer is 4", None),
        ("#### four", None),
        ("", None),
    ],
)
def test_final_answer(text: str, answer: str | None) -> None:
    assert gsm8k.final_answer(text) == answer


def problems(n: int) -> list[dict[str, str]]:
    return [
        {"question": f"What is {i} + 1?" + "?" * (i % 5), "answer": f"#### {i + 1}"}
        for i in range(n)
    ]


def write(folder: Path, n: int) -> None:
    lines = [json.dumps(problem) for problem in problems(n)]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")


def test_the_split_is_always_the_same(tmp_path: Path) -> None:
    write(tmp_path, 400)
    train, validation = gsm8k.split(tmp_path / "train.jsonl")
    gsm8k.split.cache_clear()
    again = gsm8k.split(tmp_path / "train.jsonl")
    assert validation["prompt"] == again[1]["prompt"] and train["prompt"] == again[0]["prompt"]
    assert len(validation) == gsm8k.N_VALIDATION and len(train) == 400 - gsm8k.N_VALIDATION
    assert not set(train["prompt"]) & set(validation["prompt"])


def test_the_tier_says_what_data_it_needs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the tier gsm8k needs --data FOLDER .*, got none"):
        tier("gsm8k").objective(0.1, 0, device="cpu")
    with pytest.raises(InputError, match=f"got {tmp_path}"):
        tier("gsm8k").objective(0.1, 0, device="cpu", data=tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_llm: Path) -> LanguageModel:
    return load_model(resolve_source(tiny_llm), device="cpu", dtype=torch.float32)


def test_batches_generate_what_single_problems_do(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gsm8k, "MAX_NEW_TOKENS", 20)
    pairs = [Pair(p["question"], p["answer"]) for p in problems(7)]
    examples = tokens.encode(pairs, model.tokenizer, 64)
    together = gsm8k._generate(model.model, model.tokenizer, examples)
    alone = [gsm8k._generate(model.model, model.tokenizer, [example])[0] for example in examples]
    assert together == alone
    assert len(set(together)) > 1


def test_exact_match_counts_right_answers(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [Pair(p["question"], p["answer"]) for p in problems(5)]
    examples = tokens.encode(pairs, model.tokenizer, 64)

    def generate(model: object, tokenizer: object, batch: list[Example]) -> list[str]:
        answers = {pair.response: f"thus {pair.response}.00"[:-3] for pair in pairs}
        return [answers[e.record.response] if "2" in e.record.response else "no" for e in batch]

    monkeypatch.setattr(gsm8k, "_generate", generate)
    assert gsm8k.exact_match(model.model, model.tokenizer, examples, batch_size=2) == 1 / 5


@pytest.mark.slow
def test_a_run_of_the_tier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real model on a few problems, on the CPU."""
    monkeypatch.setattr(gsm8k, "MAX_NEW_TOKENS", 8)
    monkeypatch.setattr(gsm8k, "N_VALIDATION", 4)
    write(tmp_path, 68)
    gsm8k.split.cache_clear()
    objective = tier("gsm8k").objective(1.0, 0, device="cpu", data=tmp_path)
    study = optuna.create_study()
    study.enqueue_trial(
        {
            "rank": 8,
            "alpha_ratio": 2.0,
            "lora_dropout": 0.0,
            "batch_size": 4,
            "learning_rate": 1e-3,
        }
    )
    study.optimize(objective, n_trials=1)
    assert 0.0 <= study.trials[0].user_attrs["metrics"]["exact_match"] <= 1.0
    assert study.best_value < objective.base_loss
