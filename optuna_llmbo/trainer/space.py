"""The search space of a trainer: hyperparameters of a LoRA recipe, and others of the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import os
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.trial import BaseTrial

from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.lora import space as lora_space
from optuna_llmbo.lora.hyperparameters import ALIASES
from optuna_llmbo.lora.hyperparameters import role_of
from optuna_llmbo.lora.probe import ProbeTrial
from optuna_llmbo.lora.probe import representatives
from optuna_llmbo.lora.probe import SpaceFunction
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.space import CheckedSpace
from optuna_llmbo.lora.space import Space
from optuna_llmbo.lora.space_file import read_space
from optuna_llmbo.space.axis import Axis
from optuna_llmbo.space.search_space import suggest
from optuna_llmbo.trainer.configuration import Configuration


@dataclass(frozen=True)
class TrainerSpace:
    """A checked search space."""

    distributions: Mapping[str, BaseDistribution]
    """By parameter name; for a function, those it asks for on the way to the default."""
    function: SpaceFunction | None
    lora: CheckedSpace
    """The part of it that a recipe has."""
    extra: Mapping[str, Any]
    """Defaults of the hyperparameters that a recipe does not have."""
    default_params: Mapping[str, Any] | None
    """The default configuration; None if a function's parameters cannot express it."""

    def suggest(self, trial: BaseTrial) -> Configuration:
        """The configuration that the study's sampler proposes for a trial.

        Raises:
            InputError: if a function returns an unknown name or a value that cannot be trained.
        """
        if self.function is not None:
            return self.configuration(self.function(trial))
        return self.configuration(suggest(trial, self.distributions))

    def configuration(self, params: Mapping[str, Any]) -> Configuration:
        """`params`, completed by the defaults.

        Raises:
            InputError: if a name or a value cannot be trained.
        """
        own = {name: value for name, value in params.items() if name in self.extra}
        recipe = self.lora.recipe({n: value for n, value in params.items() if n not in own})
        return Configuration(recipe, {**self.extra, **own})

    @property
    def defaults(self) -> Configuration:
        """The default configuration, whether the space can express it or not."""
        return Configuration(self.lora.defaults, dict(self.extra))

    @property
    def default(self) -> Configuration | None:
        """The default configuration, if the space can express it."""
        return None if self.default_params is None else self.configuration(self.default_params)


def check(
    space: Space, *, n_examples: int, defaults: LoRARecipe, extra: Mapping[str, Any]
) -> TrainerSpace:
    """Check a space before the first trial.

    Args:
        space: distributions by name, a function from the trial to a dict of values by name, or the
            path of a TOML file (`lora.space_file`).
        n_examples: training examples of a trial; no batch is larger.
        defaults: the default recipe; what the space does not name comes from it.
        extra: defaults of the hyperparameters beyond a recipe, by name.

    Raises:
        InputError: if the space names what is neither a hyperparameter of a recipe nor in `extra`,
            or admits a value that cannot be trained.
    """
    for name in extra:
        if name in ALIASES:
            raise InputError(
                f"extra={{{name!r}: ...}}: that is a hyperparameter of a recipe; give its default "
                "in defaults=."
            )
    if isinstance(space, (str, os.PathLike)):
        space = read_space(space)
    if callable(space):
        return _of_function(space, n_examples, defaults, extra)
    if not isinstance(space, Mapping):
        raise InputError(
            f"space={space!r}: expected a dict of optuna.distributions, a function of the "
            "trial, or the path of a TOML file."
        )
    _check_names(space, extra)
    ours = {name: one for name, one in space.items() if name not in extra}
    lora = lora_space.check(ours, n_examples=n_examples, defaults=defaults)
    assert lora.default_params is not None
    default = {
        name: lora.default_params[name] if name in ours else nearest(one, extra[name])
        for name, one in space.items()
    }
    for name, value in default.items():
        if name in extra and value != extra[name]:
            warn_once(
                f"the default {name}={extra[name]!r} lies outside of the space: the control has "
                f"{value!r}."
            )
    return TrainerSpace(dict(space), None, lora, dict(extra), default)


def nearest(distribution: BaseDistribution, value: Any) -> Any:
    """The admissible value closest to a default; where closeness means nothing, the first one."""
    found = Axis(distribution).nearest(value)
    if found is None and isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    return found


def _check_names(names: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    for name in names:
        if name not in extra:
            try:
                role_of(name)
            except InputError as error:
                raise InputError(
                    f"{error} If your trainer has a hyperparameter {name!r}, declare it with its "
                    f"default value: extra={{{name!r}: ...}}."
                ) from error


def _of_function(
    function: SpaceFunction, n_examples: int, defaults: LoRARecipe, extra: Mapping[str, Any]
) -> TrainerSpace:
    def of_recipe(trial: Any) -> Mapping[str, Any]:
        made = function(trial)
        if not isinstance(made, Mapping):
            return made
        _check_names(made, extra)
        return {name: value for name, value in made.items() if name not in extra}

    lora = lora_space.check(of_recipe, n_examples=n_examples, defaults=defaults)
    probe = _Probe(defaults, extra)
    function(probe)
    default = None if probe.unknown - extra.keys() else dict(probe.params)
    return TrainerSpace(dict(probe.distributions), function, lora, dict(extra), default)


class _Probe(ProbeTrial):
    """Answers with the defaults of a recipe and of what it does not have."""

    def __init__(self, defaults: LoRARecipe, extra: Mapping[str, Any]) -> None:
        super().__init__(defaults)
        self._extra = extra

    def _default(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self._extra:
            return super()._default(name, distribution)
        self.unknown.add(name)  # to a recipe
        found = nearest(distribution, self._extra[name])
        return representatives(distribution)[0] if found is None else found
