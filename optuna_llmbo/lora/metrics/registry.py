"""Metrics by name."""

from __future__ import annotations

from collections.abc import Callable
import difflib
import functools

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.metrics.adapter_size import AdapterSize
from optuna_llmbo.lora.metrics.exact_match import ExactMatch
from optuna_llmbo.lora.metrics.loss import Loss
from optuna_llmbo.lora.metrics.measure import Measure
from optuna_llmbo.lora.metrics.overlap import Overlap
from optuna_llmbo.lora.metrics.overlap import SCORES
from optuna_llmbo.lora.metrics.seconds import TrainingSeconds


_MAKERS: dict[str, Callable[[], Measure]] = {
    "loss": Loss,
    "exact_match": ExactMatch,
    "gsm8k": lambda: ExactMatch("gsm8k", name="gsm8k"),
    "math": lambda: ExactMatch("math", name="math"),
    "adapter_size": AdapterSize,
    "seconds": TrainingSeconds,
    "rouge": lambda: Overlap("rougeL"),
    **{score: functools.partial(Overlap, score) for score in SCORES},
}
_WITH_ARGUMENTS = {
    "multiple_choice": "MultipleChoice(choices)",
    "code_pass_at_1": "CodePassAt1(tests, allow_execution=True)",
}

NAMES = tuple(sorted(_MAKERS))


def from_name(name: str) -> Measure:
    """The metric of that name with default settings; "rouge" is ROUGE-L.

    Raises:
        InputError: if there is none of that name, it needs arguments, or a library that is not
            installed.
    """
    if name in _MAKERS:
        return _MAKERS[name]()
    if name in _WITH_ARGUMENTS:
        raise InputError(
            f"the metric {name!r} needs arguments: give "
            f"optuna_llmbo.lora.metrics.{_WITH_ARGUMENTS[name]} instead of its name."
        )
    close = difflib.get_close_matches(str(name).lower(), [*NAMES, *_WITH_ARGUMENTS], n=3)
    meant = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise InputError(f"there is no metric {name!r}.{meant} There are {', '.join(NAMES)}.")
