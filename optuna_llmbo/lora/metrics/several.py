"""Several metrics of one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.generate import Decided
from optuna_llmbo.lora.generate import Decoding
from optuna_llmbo.lora.generate import generate
from optuna_llmbo.lora.metrics.measure import as_number
from optuna_llmbo.lora.metrics.measure import Measure
from optuna_llmbo.lora.metrics.measure import TextMeasure
from optuna_llmbo.lora.metrics.measure import TextMetric
from optuna_llmbo.lora.tokens import Example


def check_all(
    metrics: Sequence[Measure], model: Any, tokenizer: Any, examples: Sequence[Example]
) -> None:
    """Check that the names differ, and run the check of each metric before any training.

    Raises:
        InputError: if not.
    """
    names = [metric.name for metric in metrics]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            f"two metrics are called {twice[0]!r}, under which their values are recorded: leave "
            "one out, or give it another name."
        )
    for metric in metrics:
        metric.check(model, tokenizer, examples)


def measure_all(
    metrics: Sequence[Measure], model: Any, tokenizer: Any, examples: Sequence[Example]
) -> dict[str, float]:
    """Measure all metrics, generating once for those that share a decoding.

    Args:
        metrics: with different names.
        model: a causal language model of `transformers`; left in evaluation mode.
        tokenizer: the model's.
        examples: at least one.

    Returns:
        Values by name, in the order of `metrics`; the same as each metric measures by itself.

    Raises:
        InputError: see `check_all`.
    """
    check_all(metrics, model, tokenizer, examples)
    texts: dict[Decoding, list[str]] = {}
    values: dict[str, float] = {}
    for metric in metrics:
        try:
            if isinstance(metric, TextMeasure):
                how = metric.decoding
                if how not in texts:
                    ends = _decided_for_all(metrics, how)
                    texts[how] = generate(model, tokenizer, examples, how, ends)
                value = metric.of_texts(texts[how], examples)
            else:
                value = metric(model, tokenizer, examples)
            values[metric.name] = as_number(metric.name, value)
        except Exception as error:
            error.add_note(f"(in the metric {metric.name!r})")
            raise
    return values


def _decided_for_all(metrics: Sequence[Measure], decoding: Decoding) -> Decided | None:
    """Whether a text is decided for all metrics that share it; None if one never says so."""
    sharing = [m for m in metrics if isinstance(m, TextMeasure) and m.decoding == decoding]
    if not all(isinstance(metric, TextMetric) for metric in sharing):
        return None
    asked = [metric.decided for metric in sharing if isinstance(metric, TextMetric)]
    return lambda text, example: all(decided(text, example) for decided in asked)
