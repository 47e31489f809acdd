from __future__ import annotations

import pytest
import torch

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.lora import evaluate
from optuna_llmbo.lora import tokens
from optuna_llmbo.lora.tokens import Example


def one_by_one(model: torch.nn.Module, examples: list[Example]) -> float:
    """The same loss from the model's own full logits, one example at a time, no padding."""
    total, count = 0.0, 0
    for example in examples:
        ids = torch.from_numpy(example.ids).long()[None]
        with torch.no_grad():
            logs = model(input_ids=ids).logits[0].double().log_softmax(-1)
        for position in range(example.n_prompt, len(example)):
            total -= float(logs[position - 1, ids[0, position]])
            count += 1
    return total / count


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_validation_loss(tiny: LanguageModel, examples: list[Example], batch_size: int) -> None:
    loss = evaluate.validation_loss(tiny.model, examples, batch_size=batch_size)
    assert loss == pytest.approx(one_by_one(tiny.model, examples), rel=1e-5)


def test_log_likelihoods_of_single_responses(tiny: LanguageModel, examples: list[Example]) -> None:
    batch = tokens.collate(examples[:7], torch.device("cpu"))
    found = evaluate.response_log_likelihoods(tiny.model, batch)
    expected = [-one_by_one(tiny.model, [e]) * e.n_response for e in examples[:7]]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_validation_loss_switches_dropout_off(
    tiny: LanguageModel, examples: list[Example]
) -> None:
    tiny.model.train()
    evaluate.validation_loss(tiny.model, examples)
    assert not tiny.model.training


def test_the_head_is_left_as_it_was(tiny: LanguageModel, examples: list[Example]) -> None:
    batch = tokens.collate(examples[:3], torch.device("cpu"))
    evaluate.response_nll(tiny.model, batch)
    assert not tiny.model.get_output_embeddings()._forward_pre_hooks
    logits = tiny.model(input_ids=batch.ids).logits
    assert logits.shape == (*batch.ids.shape, len(tiny.tokenizer))


def test_models_that_do_not_call_their_head(
    tiny: LanguageModel, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = tokens.collate(examples[:3], torch.device("cpu"))
    expected = evaluate.response_nll(tiny.model, batch)
    monkeypatch.setattr(tiny.model, "get_output_embeddings", lambda: None)
    torch.testing.assert_close(evaluate.response_nll(tiny.model, batch), expected)


def test_bfloat16_is_close(tiny_llm: str, tiny: LanguageModel, examples: list[Example]) -> None:
    half = load_model(resolve_source(tiny_llm), device="cpu", dtype=torch.bfloat16)
    loss = evaluate.validation_loss(half.model, examples)
    assert loss == pytest.approx(one_by_one(tiny.model, examples), rel=0.02)
