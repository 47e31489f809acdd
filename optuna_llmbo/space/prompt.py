"""Configurations as text: a shared passage, then a line for each hyperparameter.

The learnable token follows the last line; the encoder adds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
import math
from typing import Any

from optuna.distributions import CategoricalDistribution

from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.space.search_space import Configuration
from optuna_llmbo.space.search_space import SearchSpace


_GRADES = ("very low", "low", "medium", "high", "very high")
_SMALL = 0.01
"""Smaller numbers are written with an exponent, as people write learning rates."""
_MAX_CHOICES_SHOWN = 12
_MAX_CHOICE_SHOWN = 80
"""Characters of a choice that is repeated in the passage."""


@dataclass(frozen=True)
class Prompt:
    """Writes the configurations of one search space as text."""

    space: SearchSpace
    knowledge: Knowledge
    task: str | None = None
    """What is being optimized, in the user's words."""

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The parameter names, those with few values first: assignments share long prefixes."""
        return tuple(sorted(self.space.names, key=lambda n: (self.space.axis(n).n_values, n)))

    @cached_property
    def passage(self) -> str:
        """What all configurations share: the task, the knowledge, the ranges."""
        known = self.knowledge.passage(self.order)
        ranges = "\n".join(f"{name}: {self._range(name)}" for name in self.order)
        task = f"Task: {self.task.strip()}\n" if self.task else ""
        return f"{task}{known.strip()}\n\nRanges:\n{ranges}\n\nConfiguration:".lstrip()

    def assignment(self, configuration: Configuration) -> tuple[str, ...]:
        """Write a line for each hyperparameter: name, graded word (numbers only) and value.

        The word says where in its range the value lies, on the range's own scale: a small model
        reads "very high" more reliably than digits. The digits differ most between configurations
        and come last: everything before them is read once for many.
        """
        return tuple(
            f"\n{name}:{self._grade(name, configuration)} {format_value(configuration[name])}"
            for name in self.order
            if name in configuration
        )

    def _grade(self, name: str, configuration: Configuration) -> str:
        axis = self.space.axis(name)
        if axis.is_nominal or axis.n_values == 1:
            return ""
        place = axis.to_unit(configuration[name])
        return f" {_GRADES[min(int(place * len(_GRADES)), len(_GRADES) - 1)]}"

    def _range(self, name: str) -> str:
        distribution = self.space.distributions[name]
        if isinstance(distribution, CategoricalDistribution):
            shown = [format_value(choice) for choice in distribution.choices[:_MAX_CHOICES_SHOWN]]
            if max(map(len, shown)) > _MAX_CHOICE_SHOWN:  # each is read where it is chosen
                return f"one of {len(distribution.choices)} texts"
            more = len(distribution.choices) - len(shown)
            return "one of " + ", ".join(shown) + (f" and {more} more" if more else "")
        scale = ", logarithmic" if getattr(distribution, "log", False) else ""
        low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
        return f"{format_value(low)} to {format_value(high)}{scale}"


def format_value(value: Any) -> str:
    """Write a value as text; numbers with at most four significant digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return str(float(value))
    text = f"{value:.3e}" if 0 < abs(value) < _SMALL else f"{value:.4g}"
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        return text
    digits = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{digits}e{int(exponent)}"
