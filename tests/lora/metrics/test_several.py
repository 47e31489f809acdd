from __future__ import annotations

from collections.abc import Callable
import os
from typing import Any

import optuna
import pytest

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.lora.generate import Decoding
from optuna_llmbo.lora.metrics import AdapterSize
from optuna_llmbo.lora.metrics import check_all
from optuna_llmbo.lora.metrics import CodePassAt1
from optuna_llmbo.lora.metrics import Custom
from optuna_llmbo.lora.metrics import ExactMatch
from optuna_llmbo.lora.metrics import Loss
from optuna_llmbo.lora.metrics import Measure
from optuna_llmbo.lora.metrics import measure_all
from optuna_llmbo.lora.metrics import several
from optuna_llmbo.lora.metrics.sandbox import Limits
from optuna_llmbo.lora.tokens import Example
from tests.lora.metrics.conftest import Tell


FEW = Decoding(max_new_tokens=4, batch_size=3)
OTHER = Decoding(max_new_tokens=5, batch_size=3)


@pytest.mark.skipif(os.name != "posix", reason="POSIX processes only")
def test_the_same_values_as_one_by_one(
    tiny: LanguageModel, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = tell([("x = 1", "x = 1"), ("x = 1", "x = 2"), ("x = 3", "x =  3"), ("x = 3", "1")])
    metrics: list[Measure] = [
        ExactMatch(decoding=FEW),
        Loss(),
        CodePassAt1(
            lambda _: "assert x < 3",
            allow_execution=True,
            decoding=Decoding(max_new_tokens=4, batch_size=3),
            limits=Limits(seconds=60),
        ),
        ExactMatch("gsm8k", OTHER, name="numbers"),
        AdapterSize(),
        Custom("count", "maximize", lambda model, tokenizer, examples: len(examples)),
    ]
    alone = {metric.name: metric(tiny.model, tiny.tokenizer, examples) for metric in metrics}
    asked = []

    def generate(
        model: Any, tokenizer: Any, examples: Any, decoding: Decoding, decided: Any
    ) -> list[str]:
        asked.append(decoding)
        return whole(model, tokenizer, examples, decoding, decided)

    whole = several.generate  # type: ignore[attr-defined]
    monkeypatch.setattr(several, "generate", generate)
    together = measure_all(metrics, tiny.model, tiny.tokenizer, examples)
    assert together == alone and list(together) == list(alone)
    assert asked == [FEW, OTHER]
    assert alone["exact_match"] == 2 / 4 and alone["code_pass_at_1"] == 2 / 4
    assert alone["numbers"] == 2 / 4 and alone["count"] == 4


def test_an_objective_records_them(make_objective: Callable[..., LoRAObjective]) -> None:
    metrics = {metric.name: metric for metric in (Loss(), AdapterSize(), ExactMatch(decoding=FEW))}
    study = optuna.create_study(direction="minimize")
    objective = make_objective(extra_metrics=metrics)
    study.enqueue_trial(objective.default_params)
    study.optimize(objective, n_trials=1)
    recorded = study.best_trial.user_attrs["metrics"]
    assert recorded["loss"] == pytest.approx(study.best_value, rel=1e-6)
    assert recorded["adapter_size"] > 0 and recorded["exact_match"] == 0


def test_checks(tiny: LanguageModel, examples: list[Example]) -> None:
    check_all([Loss(), ExactMatch()], tiny.model, tiny.tokenizer, examples)
    with pytest.raises(InputError, match="two metrics are called 'exact_match'.* another name"):
        check_all([ExactMatch(), ExactMatch("gsm8k")], tiny.model, tiny.tokenizer, examples)
    with pytest.raises(InputError, match="together more than"):
        measure_all(
            [Loss(), ExactMatch(decoding=Decoding(5000))], tiny.model, tiny.tokenizer, examples
        )
