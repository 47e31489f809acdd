"""The search space of an objective: a dict of distributions, a function of the trial, a file."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
from dataclasses import dataclass
import os
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import BaseTrial

from optuna_llmbo.errors import differences
from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.lora import recipe as recipes
from optuna_llmbo.lora.hyperparameters import role_of
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.space_file import read_space
from optuna_llmbo.space.search_space import suggest


SpaceFunction = Callable[[Any], Mapping[str, Any]]
"""From a trial, which it asks for values, to hyperparameters."""
Space = Mapping[str, BaseDistribution] | SpaceFunction | str | os.PathLike[str]


@dataclass(frozen=True)
class CheckedSpace:
    """A search space whose values can all be trained, and the default in its names."""

    distributions: Mapping[str, BaseDistribution]
    """By parameter name; for a function, those it asks for on the way to the default."""
    function: SpaceFunction | None
    default_params: Mapping[str, Any] | None
    """The default configuration; None if a function's parameters cannot express it."""
    defaults: LoRARecipe
    """Source of the values that the space does not name."""
    n_examples: int
    """Training examples of a trial; no batch is larger."""

    def suggest(self, trial: BaseTrial) -> LoRARecipe:
        """The configuration that the study's sampler proposes for a trial.

        Raises:
            InputError: if a function returns an unknown name or a value that cannot be trained.
        """
        if self.function is not None:
            return self.recipe(self.function(trial))
        return self.recipe(suggest(trial, self.distributions))

    def recipe(self, params: Mapping[str, Any]) -> LoRARecipe:
        """`params`, completed by the defaults.

        Raises:
            InputError: if a name or a value cannot be trained.
        """
        recipe = LoRARecipe.from_params(params, self.defaults)
        if recipe.batch_size > self.n_examples:
            raise InputError(
                f"a batch of {recipe.batch_size} is larger than the {self.n_examples} examples "
                "that a trial trains on: lower the batch size or raise proxy."
            )
        return recipe

    @property
    def default_recipe(self) -> LoRARecipe | None:
        """The default configuration, if the space can express it."""
        return None if self.default_params is None else self.recipe(self.default_params)


def check(space: Space | None, *, n_examples: int, defaults: LoRARecipe) -> CheckedSpace:
    """Check a space before the first trial.

    Only the parameters that a function asks for on the way to the default configuration are seen;
    other branches are checked when a trial takes them.

    Args:
        space: distributions by name, a function from the trial to a dict of values by name, the
            path of a TOML file (`space_file`), or None for `default_space`.
        n_examples: training examples of a trial.
        defaults: the default configuration; what the space does not name comes from it.

    Raises:
        InputError: if the space admits a value that cannot be trained.
    """
    if space is None:
        space = recipes.default_space(n_examples)
    if isinstance(space, (str, os.PathLike)):
        space = read_space(space)
    if callable(space):
        return _check_function(space, n_examples, defaults)
    if not isinstance(space, Mapping):
        raise InputError(
            f"space={space!r}: expected a dict of optuna.distributions, a function of the "
            "trial, the path of a TOML file, or None."
        )
    recipes.check_space(space, n_examples)
    default = recipes.default_params(space, defaults)
    checked = CheckedSpace(dict(space), None, default, defaults, n_examples)
    _warn_of_moved_default(checked.recipe(default), defaults)
    return checked


def _warn_of_moved_default(default: LoRARecipe, defaults: LoRARecipe) -> None:
    """Warn if a space cannot express the default: the control is another configuration then."""
    wanted, got = (
        {name: round(value, 12) if isinstance(value, float) else value for name, value in one}
        for one in (dataclasses.asdict(recipe).items() for recipe in (defaults, default))
    )
    if moved := differences(wanted, got, label="in the space"):
        warn_once(
            f"the default configuration lies outside of the space: {moved}. The nearest one is "
            "the control that the search is compared with."
        )


def _check_function(
    function: SpaceFunction, n_examples: int, defaults: LoRARecipe
) -> CheckedSpace:
    probe = DefaultTrial(defaults)
    params = function(probe)
    if not isinstance(params, Mapping):
        raise InputError(f"the function given as space returned {params!r}, expected a dict.")
    known = {n: d for n, d in probe.distributions.items() if n not in probe.unknown}
    recipes.check_space(known, n_examples)
    default = None if probe.unknown else dict(probe.params)
    checked = CheckedSpace(dict(probe.distributions), function, default, defaults, n_examples)
    recipe = checked.recipe(params)
    if default is not None:
        _warn_of_moved_default(recipe, defaults)
    return checked


class DefaultTrial:
    """Stands in for a trial: answers with the default and remembers what it was asked."""

    number = 0

    def __init__(self, defaults: LoRARecipe) -> None:
        self.defaults = defaults
        self.distributions: dict[str, BaseDistribution] = {}
        self.params: dict[str, Any] = {}
        self.unknown: set[str] = set()

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

    def _answer(self, name: str, distribution: BaseDistribution) -> Any:
        self.distributions[name] = distribution
        try:
            role_of(name)
        except InputError:
            self.unknown.add(name)
            return self.params.setdefault(name, _first(distribution))
        known = {n: d for n, d in self.distributions.items() if n not in self.unknown}
        recipes.check_space({name: distribution}, n_examples=2**63)
        self.params[name] = recipes.default_params(known, self.defaults)[name]
        return self.params[name]


def _first(distribution: Any) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    return distribution.low
