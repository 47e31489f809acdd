"""Where each value of a trial goes: into the configuration, the command, or the environment."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
import shlex
from typing import Any

from optuna.distributions import BaseDistribution

from optuna_llmbo.command.draws import draws
from optuna_llmbo.command.settings_file import SettingsFile
from optuna_llmbo.command.source import Computed
from optuna_llmbo.command.source import Named
from optuna_llmbo.command.source import read_source
from optuna_llmbo.command.source import Source
from optuna_llmbo.command.template import read_template
from optuna_llmbo.command.template import Template
from optuna_llmbo.command.typed import check_whole
from optuna_llmbo.command.typed import typed
from optuna_llmbo.errors import did_you_mean
from optuna_llmbo.errors import InputError


GIVEN = ("config", "folder", "trial", "gpus")
"""Names that every trial has: the copy of the configuration, the trial's folder and number, and
its devices."""
_CHECKED = {"config": "config", "folder": "folder", "trial": 0, "gpus": "0"}


@dataclass(frozen=True)
class Call:
    """What is run in one trial."""

    words: tuple[str, ...]
    env: Mapping[str, str]
    stop_words: tuple[str, ...]
    values: Mapping[str, Any]
    """The configuration's new values by key."""


@dataclass(frozen=True)
class Plan:
    """How trials become calls of a command; checked when it is made.

    Attributes:
        command: the words of the command.
        space: the parameters.
        config: the command's configuration; None if it has none.
        assign: what keys of the configuration are set to, beside the parameters of the same name;
            `+key` is added where the file has none.
        env: texts of environment variables.
        stop_command: the words of what stops it, beside a signal; empty for none.
    """

    command: Sequence[str]
    space: Mapping[str, BaseDistribution]
    config: SettingsFile | None
    assign: Mapping[str, Any]
    env: Mapping[str, str]
    stop_command: Sequence[str] = ()
    sources: dict[str, Source] = field(init=False)
    """Where the values of the keys come from, those of parameters of the same name included."""
    _words: tuple[Template, ...] = field(init=False)
    _env: dict[str, Template] = field(init=False)
    _stop_words: tuple[Template, ...] = field(init=False)

    def __post_init__(self) -> None:
        known = self._known()

        def templates(texts: Sequence[str], where: str) -> tuple[Template, ...]:
            return tuple(read_template(text, known, where) for text in texts)

        def set_(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        set_("_words", templates(self.command, "the command"))
        set_("_stop_words", templates(self.stop_command, "the stop command"))
        set_("_env", {k: read_template(v, known, f"--env {k}") for k, v in self.env.items()})
        set_("sources", self._read_sources(known))
        self._check_config_is_read()
        self._check_each_goes_somewhere()
        for params in draws(self.space):
            self.fill(params, _CHECKED)

    def fill(self, params: Mapping[str, Any], given: Mapping[str, Any]) -> Call:
        """What is run with some parameters.

        Args:
            params: values of all parameters.
            given: values of `GIVEN`.

        Raises:
            InputError: if a value cannot be computed or does not fit its key.
        """
        values = {**params, **given}
        return Call(
            tuple(word.fill(values) for word in self._words),
            {name: text.fill(values) for name, text in self._env.items()},
            tuple(word.fill(values) for word in self._stop_words),
            {key: self._value(key, source, values) for key, source in self.sources.items()},
        )

    def key_of(self, parameter: str) -> str | None:
        """The key that takes a parameter's value as it is; None if none does."""
        named = Named(parameter)
        return next((key for key, source in self.sources.items() if source == named), None)

    def computed_of(self, parameter: str) -> list[tuple[str, Computed]]:
        """The keys whose values are computed of a parameter."""
        return [
            (key, source)
            for key, source in self.sources.items()
            if isinstance(source, Computed) and parameter in source.computed
        ]

    def current(self, key: str) -> Any:
        """The file's value of a key; None if it has none."""
        return self.config[key] if self.config is not None and key in self.config else None

    def _known(self) -> list[str]:
        if not self.command:
            raise InputError("the command is empty: give the program and its arguments.")
        if not self.space:
            raise InputError("the space has no parameters: name what is to be searched.")
        for name in self.space:
            if name in GIVEN:
                raise InputError(
                    f"the space has the parameter {name!r}, but {{{name}}} is the trial's own: "
                    "choose another name, and set the key by --set."
                )
        return [*self.space, *GIVEN]

    def _read_sources(self, known: Sequence[str]) -> dict[str, Source]:
        sources: dict[str, Source] = {}
        if self.config is None:
            if self.assign:
                raise InputError(
                    f"--set {next(iter(self.assign))} sets a key of the configuration, but there "
                    "is none: give the command's own file as --config."
                )
            return sources
        for given, text in self.assign.items():
            key = given.removeprefix("+")
            if given == key and key not in self.config:
                raise InputError(
                    f"{self.config.path} has no key {key!r}.{self.config.nearest(key)} If the "
                    f"command knows it all the same, add it: --set '+{key}={text}'."
                )
            sources[key] = read_source(text, known, f"--set {given}")
        own = {name: Named(name) for name in self.space if name in self.config}
        return {**own, **sources}

    def _check_config_is_read(self) -> None:
        templates = [*self._words, *self._env.values()]
        names = frozenset().union(*(one.names for one in templates))
        if self.config is not None and "config" not in names:
            raise InputError(
                f"the command does not read its configuration: write {{config}} where "
                f"{str(self.config.path)!r} stands in {shlex.join(self.command)!r}."
            )
        if self.config is None and "config" in names:
            raise InputError(
                "the command has the placeholder {config}, but there is no configuration: give "
                "the command's own file as --config."
            )

    def _check_each_goes_somewhere(self) -> None:
        templates = [*self._words, *self._env.values()]
        users: list[Template | Source] = [*templates, *self.sources.values()]
        whole = frozenset().union(*(one.whole for one in users))
        for name in self.space:
            if name not in whole and not any(name in one.computed for one in users):
                raise self._goes_nowhere(name)
        within = [one for one in users if one.computed - whole - set(GIVEN)]
        alone = sorted(frozenset().union(*(one.computed for one in within)) - whole - set(GIVEN))
        if len(alone) > len(within):
            raise InputError(
                f"{' and '.join(alone)} are used in {len(within)} computed value"
                f"{'' if len(within) == 1 else 's'} only, so that the command cannot tell them "
                "apart. Is one of them a key of another name? Then set it: --set KEY="
                f"{alone[0]}."
            )

    def _goes_nowhere(self, name: str) -> InputError:
        file = ""
        if self.config is not None:
            file = f" {self.config.path} has no such key.{self.config.nearest(name)}"
        return InputError(
            f"the parameter {name!r} goes nowhere.{file} Say where: --set KEY={name} for a key of "
            f"the configuration (--set '+KEY={name}' for a new one), {{{name}}} in the command, "
            f"or --env VARIABLE={{{name}}}."
        )

    def _value(self, key: str, source: Source, values: Mapping[str, Any]) -> Any:
        value, current = source.of(values), self.current(key)
        if isinstance(source, Computed):
            check_whole(value, current, key, source.expression.text)
            if isinstance(current, int) and not isinstance(current, bool):
                value = int(value)
        return typed(value, current, key)


def read_pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """Read options of the form NAME=VALUE.

    Raises:
        InputError: if one has another form, or a name comes twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        name, has_value, value = text.partition("=")
        if not has_value or not name.strip():
            raise InputError(f"{option} {text!r}: expected NAME=VALUE.")
        if name.strip() in pairs:
            raise InputError(f"{option}: {name.strip()!r} is given twice; leave one out.")
        pairs[name.strip()] = value
    return pairs


def check_known(names: Mapping[str, Any], space: Mapping[str, Any], what: str) -> None:
    """Check that names are parameters.

    Raises:
        InputError: if one is not, with the nearest one.
    """
    for name in names:
        if name not in space:
            raise InputError(f"{what}: there is no parameter {name!r}.{did_you_mean(name, space)}")
