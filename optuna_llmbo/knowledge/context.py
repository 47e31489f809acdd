"""What a study is about besides its hyperparameters, and for which contexts a number holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass
import math
import numbers
from typing import Any

from optuna_llmbo.errors import check_choice
from optuna_llmbo.errors import did_you_mean
from optuna_llmbo.errors import InputError


__all__ = ["METHODS", "Condition", "Context", "read_context"]

METHODS = ("lora", "full", "preference", "pretraining")
"""LoRA, fine-tuning of all weights, preference tuning (DPO and its kin), training from scratch."""


@dataclass(frozen=True)
class Context:
    """What decides which values are good; None where it is not known.

    Attributes:
        method: one of `METHODS`.
        parameters: of the whole model, trained or not.
        steps: of the optimizer in one trial.
    """

    method: str | None = None
    parameters: float | None = None
    steps: float | None = None

    @property
    def known(self) -> dict[str, Any]:
        """The entries that are known, by name."""
        return _stated(self)


@dataclass(frozen=True)
class Condition:
    """The contexts that a number holds for; None where it holds for all.

    Attributes:
        method: one of `METHODS`.
        parameters: (low, high), both included, as are those of `steps`.
        steps: (low, high).
    """

    method: str | None = None
    parameters: tuple[float, float] | None = None
    steps: tuple[float, float] | None = None

    @property
    def known(self) -> dict[str, Any]:
        """The entries that it depends on, by name."""
        return _stated(self)

    def allows(self, context: Context) -> bool:
        """Whether a context does not contradict: what it leaves open may hold."""
        if None not in (self.method, context.method) and self.method != context.method:
            return False
        pairs = ((self.parameters, context.parameters), (self.steps, context.steps))
        return all(
            bounds is None or value is None or bounds[0] <= value <= bounds[1]
            for bounds, value in pairs
        )


def read_context(given: Mapping[str, Any] | Context | None) -> Context:
    """Check a user's context.

    Args:
        given: a mapping with any of "method", "parameters" and "steps"; None for nothing known.

    Returns:
        The context.

    Raises:
        InputError: if it is no mapping, a key is unknown, or a value is not what the key takes.
    """
    if given is None or isinstance(given, Context):
        return given or Context()
    if not isinstance(given, Mapping):
        raise InputError(
            'context must be a dict such as {"method": "lora", "parameters": 7e9, "steps": 300}; '
            f"got {given!r}."
        )
    known = list(asdict(Context()))
    for key, value in given.items():
        if key not in known:
            raise InputError(
                f"context: {key!r} is none of {', '.join(known)}.{did_you_mean(key, known)}"
            )
        if key == "method":
            _check_method(value)
        elif not _is_count(value):
            raise InputError(f"context[{key!r}] must be a positive number; got {value!r}.")
    return Context(**given)


def _stated(one: Context | Condition) -> dict[str, Any]:
    return {name: value for name, value in asdict(one).items() if value is not None}


def _check_method(value: Any) -> None:
    try:
        check_choice("context['method']", value, METHODS)
    except InputError as error:
        raise InputError(f"{error}{did_you_mean(value, METHODS)}") from error


def _is_count(value: Any) -> bool:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0
