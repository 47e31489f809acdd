"""Measuring a trial with metrics that may fail: functions of the user above all."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import math
from typing import Any

from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.lora.adapter import adapter
from optuna_llmbo.lora.memory import is_out_of_memory
from optuna_llmbo.lora.memory import release
from optuna_llmbo.lora.metrics import Custom
from optuna_llmbo.lora.metrics import Measure
from optuna_llmbo.lora.metrics import measure_all
from optuna_llmbo.lora.metrics.measure import as_number
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.tokens import Example


Function = Callable[[Any, Any, Sequence[Example]], Any]


class MeasurementFailed(RuntimeError):
    """A metric of the search could not be measured; the message says which and why."""


def targets_of(
    metrics: Sequence[Measure], model: Any, tokenizer: Any, examples: Sequence[Example]
) -> dict[str, float]:
    """Values of metrics that a search optimizes.

    Raises:
        MeasurementFailed: if a metric raises anything but a lack of memory, or returns no finite
            number.
    """
    try:
        values = measure_all(metrics, model, tokenizer, examples)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise MeasurementFailed(said(error)) from error
    for name, value in values.items():
        if not math.isfinite(value):
            raise MeasurementFailed(f"the metric {name!r} is {value}.")
    return values


def extras_of(
    functions: Mapping[str, Function], model: Any, tokenizer: Any, examples: Sequence[Example]
) -> tuple[dict[str, float], list[str]]:
    """Values of extra metrics, and a sentence for each that could not be measured."""
    values: dict[str, float] = {}
    problems = []
    for name, function in functions.items():
        found = _tried(name, function, model, tokenizer, examples)
        if isinstance(found, float):
            values[name] = found
        else:
            problems.append(found)
            release()
    return values, problems


def _tried(
    name: str, function: Function, model: Any, tokenizer: Any, examples: Sequence[Example]
) -> float | str:
    """A finite value, or why there is none."""
    try:
        value = as_number(name, function(model, tokenizer, examples))
    except Exception as error:
        return f"The extra metric {name!r} was not measured: {said(error)}"
    return value if math.isfinite(value) else f"The extra metric {name!r} is {value}."


def try_out(
    targets: Sequence[Measure],
    extra: Mapping[str, Function],
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    recipe: LoRARecipe,
    *,
    seed: int,
) -> None:
    """Call the user's functions once on an adapter that is not trained yet, as trials will.

    A function that fails here would fail in every trial. One that is not finite for an untrained
    adapter may be so for a trained one: that is a warning. Metrics that have a check of their own
    are checked and not called.

    Raises:
        InputError: if a function raises, or returns no number.
    """
    checked = {name: one for name, one in extra.items() if hasattr(one, "check")}
    for one in checked.values():
        one.check(model, tokenizer, examples)
    functions = {one.name: one.function for one in targets if isinstance(one, Custom)}
    functions |= {name: one for name, one in extra.items() if name not in checked}
    if not functions:
        return
    with adapter(model, recipe, seed):
        model.eval()
        for name, function in functions.items():
            try:
                value = as_number(name, function(model, tokenizer, examples))
            except Exception as error:
                raise InputError(
                    f"the metric {name!r} fails with an adapter that is not trained yet, as it "
                    f"would in every trial: {said(error)} Mend it, or leave it out."
                ) from error
            if not math.isfinite(value):
                warn_once(
                    f"the metric {name!r} is {value} for an adapter that is not trained yet; "
                    "where it stays so it cannot be recorded."
                )


def said(error: BaseException) -> str:
    """An exception as a sentence: its type, its message and its notes."""
    text = " ".join([f"{type(error).__name__}: {error}".strip(), *getattr(error, "__notes__", ())])
    return text if text.endswith(".") else f"{text}."
