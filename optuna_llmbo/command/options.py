"""What a `CommandObjective` is made with, checked."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import os
from pathlib import Path
import re
import shlex
from typing import Any

from optuna.distributions import BaseDistribution

from optuna_llmbo.command.numbers import is_number
from optuna_llmbo.command.plan import Plan
from optuna_llmbo.command.settings_file import SettingsFile
from optuna_llmbo.errors import check_choice
from optuna_llmbo.errors import check_type
from optuna_llmbo.errors import InputError
from optuna_llmbo.space.space_file import read_space


TAKES = ("last", "best")
DIRECTIONS = ("minimize", "maximize")
SEARCHED = "searched"
"""Entry of a fingerprint: keys of the file that are searched, which may become more or fewer."""
_DEVICES = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class CommandOptions:
    """What a `CommandObjective` is made with, checked; its docstring says what they are.

    Attributes:
        plan: where the values go.
        metric: the metric's name.
        direction: "minimize" or "maximize".
        take: "last" or "best".
        pattern: what finds the metric in a line; None for what tools write.
        metric_files: patterns of the files to read.
        folder: where the trials' folders are.
        gpus: for each trial that runs at once, its devices.
        grace: seconds.
    """

    plan: Plan
    metric: str
    direction: str
    take: str
    pattern: re.Pattern[str] | None
    metric_files: tuple[str, ...]
    folder: Path
    gpus: tuple[str, ...]
    grace: float

    @property
    def fingerprint(self) -> dict[str, Any]:
        """All that determines a result besides the parameters; plain values with short names."""
        plan = self.plan
        facts: dict[str, Any] = {
            SEARCHED: [],
            "command": shlex.join(plan.command),
            "metric": self.metric,
            "direction": self.direction,
            "take": self.take,
        }
        if self.pattern is not None:
            facts["metric_regex"] = self.pattern.pattern
        if self.metric_files:
            facts["metric_files"] = list(self.metric_files)
        facts |= {f"--env {name}": text for name, text in plan.env.items()}
        facts |= {f"--set {name}": value for name, value in plan.assign.items()}
        if plan.config is not None:
            file, leaves = plan.config.path.name, plan.config.leaves()
            facts |= {
                f"{file}: {key}": _plain(value)
                for key, value in leaves.items()
                if key not in plan.sources
            }
            facts[SEARCHED] = [f"{file}: {key}" for key in plan.space if key in plan.sources]
        return facts


def _plain(value: Any) -> Any:
    """A value of a configuration as JSON has it."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    return str(value)


def command_options(
    command: str | Sequence[str],
    space: Mapping[str, BaseDistribution] | str | os.PathLike[str],
    metric: str,
    *,
    config: str | os.PathLike[str] | None,
    assign: Mapping[str, Any],
    env: Mapping[str, str],
    direction: str,
    take: str,
    metric_regex: str | None,
    metric_files: Sequence[str],
    folder: str | os.PathLike[str],
    gpus: Sequence[str],
    grace: float,
    stop_command: str | Sequence[str] | None,
) -> CommandOptions:
    """Check what a `CommandObjective` is given.

    Raises:
        InputError: at the first mistake.
    """
    check_choice("direction", direction, DIRECTIONS)
    check_choice("take", take, TAKES)
    check_type("metric", metric, str, "the name of a metric, such as 'eval_loss'")
    if not is_number(grace) or grace < 0:
        raise InputError(f"grace must be seconds, at least 0; got {grace!r}.")
    if isinstance(gpus, str):
        raise InputError(f'gpus must be a list, an entry for each trial at once; got "{gpus}".')
    if gpus and _DEVICES in env:
        raise InputError(f"gpus and env both set {_DEVICES}: leave one of them out.")
    plan = Plan(
        _words(command, "command"),
        _space(space),
        None if config is None else SettingsFile(Path(config).expanduser()),
        dict(assign),
        dict(env),
        () if stop_command is None else _words(stop_command, "stop_command"),
    )
    return CommandOptions(
        plan,
        metric,
        direction,
        take,
        _pattern(metric_regex),
        tuple(metric_files),
        Path(folder).expanduser(),
        tuple(gpus),
        float(grace),
    )


def _words(command: str | Sequence[str], what: str) -> tuple[str, ...]:
    if not isinstance(command, str):
        return tuple(map(str, command))
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise InputError(f"the {what} {command!r} cannot be read ({error}).") from error


def _space(
    space: Mapping[str, BaseDistribution] | str | os.PathLike[str],
) -> Mapping[str, BaseDistribution]:
    if isinstance(space, (str, os.PathLike)):
        return read_space(space)
    if not isinstance(space, Mapping):
        raise InputError(
            "space must be the path of a TOML file or a dict of optuna.distributions; got "
            f"{space!r}."
        )
    return dict(space)


def _pattern(text: str | None) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise InputError(f"metric_regex {text!r} is no regular expression: {error}.") from error
    if "value" not in pattern.groupindex and pattern.groups == 0:
        raise InputError(
            f"metric_regex {text!r} has no group for the value: write "
            r"'loss: (?P<value>[-+.\deE]+)', with (?P<step>...) or (?P<epoch>...) where the "
            "line says it."
        )
    return pattern
