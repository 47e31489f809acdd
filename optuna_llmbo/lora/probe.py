"""What a function given as space can ask for, found by calling it before the first trial."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.lora import recipe as recipes
from optuna_llmbo.lora.hyperparameters import ALIASES
from optuna_llmbo.lora.recipe import LoRARecipe


SpaceFunction = Callable[[Any], Mapping[str, Any]]
"""From a trial, which it asks for values, to hyperparameters."""

MAX_CALLS = 2000
"""Calls of a function in search of its branches, a fraction of a second in all."""


class ProbeTrial:
    """Stands in for a trial: answers as it is told, then with the default, and remembers both.

    Args:
        defaults: the default configuration.
        told: answers to the first questions, in their order.
    """

    number = 0

    def __init__(self, defaults: LoRARecipe, told: tuple[Any, ...] = ()) -> None:
        self.defaults = defaults
        self.distributions: dict[str, BaseDistribution] = {}
        self.params: dict[str, Any] = {}
        self.unknown: set[str] = set()
        self.user_attrs: dict[str, Any] = {}
        self._told = told

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """As `optuna.Trial.suggest_float`."""
        return float(self._answer(name, FloatDistribution(low, high, log=log, step=step)))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """As `optuna.Trial.suggest_int`."""
        return int(self._answer(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """As `optuna.Trial.suggest_categorical`."""
        return self._answer(name, CategoricalDistribution(choices))

    def set_user_attr(self, key: str, value: Any) -> None:
        """As `optuna.Trial.set_user_attr`."""
        self.user_attrs[key] = value

    def _answer(self, name: str, distribution: BaseDistribution) -> Any:
        if name in self.params:
            return self.params[name]
        self.distributions[name] = distribution
        default = self._default(name, distribution)
        n_asked = len(self.params)
        self.params[name] = self._told[n_asked] if n_asked < len(self._told) else default
        return self.params[name]

    def _default(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in ALIASES:
            self.unknown.add(name)
            return representatives(distribution)[0]
        recipes.check_space({name: distribution}, n_examples=2**63)
        known = {n: d for n, d in self.distributions.items() if n not in self.unknown}
        return recipes.default_params(known, self.defaults)[name]


def ask_default(
    function: SpaceFunction, defaults: LoRARecipe
) -> tuple[ProbeTrial, Mapping[str, Any]]:
    """What a function asks for on the way to the default configuration, and what it makes of it.

    Raises:
        InputError: if it returns no dict.
    """
    probe = ProbeTrial(defaults)
    return probe, _called(function, probe)


def branches(function: SpaceFunction, defaults: LoRARecipe) -> list[Mapping[str, Any]]:
    """What a function makes of the answers that may lead to its branches.

    That is every combination of categorical values, with all numbers at their default and with one
    number at a time at the ends of its range. Answers that a function rejects with `TrialPruned`
    are left out. After `MAX_CALLS` calls the rest is left out, with a warning.

    Raises:
        InputError: if the function raises something else, or returns no dict.
    """
    made: list[Mapping[str, Any]] = []
    waiting: deque[tuple[tuple[Any, ...], bool]] = deque([((), False)])
    for _ in range(MAX_CALLS):
        if not waiting:
            return made
        told, has_extreme = waiting.popleft()
        probe = ProbeTrial(defaults, told)
        try:
            made.append(_called(function, probe))
        except optuna.TrialPruned:
            pass
        asked = list(probe.params.items())
        answers = tuple(value for _, value in asked)
        for i, (name, answer) in enumerate(asked[len(told) :], len(told)):
            distribution = probe.distributions[name]
            is_number = not isinstance(distribution, CategoricalDistribution)
            if is_number and has_extreme:
                continue
            others = [value for value in representatives(distribution) if value != answer]
            waiting.extend(((*answers[:i], other), has_extreme or is_number) for other in others)
    if waiting:
        warn_once(
            f"the function given as space has more branches than the {MAX_CALLS} that were "
            "checked; the others are checked when a trial takes them."
        )
    return made


def _called(function: SpaceFunction, probe: ProbeTrial) -> Mapping[str, Any]:
    try:
        params = function(probe)
    except (InputError, optuna.TrialPruned):
        raise
    except Exception as error:
        raise InputError(
            f"the function given as space raises {type(error).__name__}: {error} for "
            f"{probe.params}: expected a dict of hyperparameters."
        ) from error
    if not isinstance(params, Mapping):
        raise InputError(f"the function given as space returned {params!r}, expected a dict.")
    return params


def representatives(distribution: BaseDistribution) -> tuple[Any, ...]:
    """The values that stand for all others: all choices; of numbers the ends, and of integers the
    second one, which is even where the first is odd."""
    if isinstance(distribution, CategoricalDistribution):
        return tuple(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    ends = [distribution.low, distribution.high]
    if isinstance(distribution, IntDistribution) and not distribution.single():
        ends.insert(1, distribution.low + distribution.step)
    return tuple(dict.fromkeys(ends))
