"""The search space of an objective: a dict of distributions, a function of the trial, a file."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from dataclasses import dataclass
import itertools
import os
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import BaseTrial

from optuna_llmbo.errors import differences
from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.lora import recipe as recipes
from optuna_llmbo.lora.hyperparameters import roles_of
from optuna_llmbo.lora.probe import ask_default
from optuna_llmbo.lora.probe import branches
from optuna_llmbo.lora.probe import representatives
from optuna_llmbo.lora.probe import SpaceFunction
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.space.search_space import suggest
from optuna_llmbo.space.space_file import read_space


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
    admitted: tuple[LoRARecipe, ...] = ()
    """Recipes with every combination of what decides whether a model can be trained: layers,
    variants, initializations, ranks at the ends of their range, biases and optimizers. Of a
    function, those that its branches lead to (`probe.branches`)."""

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


def check(
    space: Space | None, *, n_examples: int, defaults: LoRARecipe, largest_rank: int = 256
) -> CheckedSpace:
    """Check a space before the first trial.

    A function is asked for every combination of its categorical values, with numbers at their
    default and at the ends of their range (`probe.branches`). A branch that only other numbers
    lead to is checked when a trial takes it.

    Args:
        space: distributions by name, a function from the trial to a dict of values by name, the
            path of a TOML file (`space_file`), or None for `default_space`.
        n_examples: training examples of a trial.
        defaults: the default configuration; what the space does not name comes from it.
        largest_rank: that the variant can start from; it bounds `default_space`.

    Raises:
        InputError: if the space admits a value that cannot be trained.
    """
    if space is None:
        space = recipes.default_space(n_examples, largest_rank)
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
    return dataclasses.replace(checked, admitted=_combinations(checked))


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
    probe, params = ask_default(function, defaults)
    known = {n: d for n, d in probe.distributions.items() if n not in probe.unknown}
    recipes.check_space(known, n_examples)
    default = None if probe.unknown else dict(probe.params)
    checked = CheckedSpace(dict(probe.distributions), function, default, defaults, n_examples)
    recipe = checked.recipe(params)
    if default is not None:
        _warn_of_moved_default(recipe, defaults)
    admitted = [checked.recipe(made) for made in branches(function, defaults)]
    return dataclasses.replace(checked, admitted=tuple(dict.fromkeys(admitted)))


# Together these decide whether a model can be trained: with each group, all its combinations.
_GROUPS = (
    ("rank", "variant", "init", "target_modules"),
    ("bias", "target_modules", "modules_to_save"),
    ("optimizer",),
)


def _combinations(space: CheckedSpace) -> tuple[LoRARecipe, ...]:
    """The recipes of all combinations of what decides whether a model can be trained."""
    roles, default = roles_of(space.distributions), dict(space.default_params or {})
    admitted = [space.recipe(default)]
    for group in _GROUPS:
        names = [roles[role] for role in group if role in roles]
        values = (representatives(space.distributions[name]) for name in names)
        for chosen in itertools.product(*values):
            choice = dict(zip(names, chosen, strict=True))
            try:
                admitted.append(space.recipe(default | choice))
            except InputError as error:
                raise InputError(
                    f"the space admits {', '.join(f'{n}={v!r}' for n, v in choice.items())}, "
                    f"which cannot be trained: {error} A function given as space can ask for one "
                    "depending on the other."
                ) from error
    return tuple(dict.fromkeys(admitted))
