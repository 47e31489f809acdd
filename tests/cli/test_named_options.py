"""Every command and option that a message or a docstring names is there."""

from __future__ import annotations

from pathlib import Path
import re

import click
import pytest
import typer

import optuna_llmbo
from optuna_llmbo import cli
from tests.source_texts import texts


PACKAGE = Path(optuna_llmbo.__file__).parent
COMMANDS: dict[str, click.Command] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
OPTIONS = {
    name: {flag for parameter in command.params for flag in parameter.opts}
    for name, command in COMMANDS.items()
}
ALL = {flag for flags in OPTIONS.values() for flag in flags} | {"--help", "--version"}
# Messages of these files are seen only by the users of one command.
OF_ONE_COMMAND = {
    "cli/export.py": "export",
    "cli/promote.py": "promote",
    "cli/proxy_check.py": "proxy-check",
    "lora/export": "export",
    "lora/proxy_check.py": "proxy-check",
}
OTHER_PROGRAMS = (
    "pip install",
    "llamafactory-cli",
    "trl sft",
    "accelerate",
    "python -m",
    "mlflow ui",
    "wandb sync",
    "tensorboard --logdir",
)


def command_of(path: Path, text: str) -> str | None:
    """The only command that a text is about, if there is one."""
    named = re.search(r"`(?:optuna-llmbo )?([a-z-]+) --", text)
    if named and named.group(1) in OPTIONS:
        return named.group(1)
    inside = path.relative_to(PACKAGE).as_posix()
    return next((one for place, one in OF_ONE_COMMAND.items() if inside.startswith(place)), None)


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix()
)
def test_options_in_messages(path: Path) -> None:
    for text in texts(path):
        if any(program in text for program in OTHER_PROGRAMS):
            continue
        command = command_of(path, text)
        known = ALL if command is None else OPTIONS[command] | {"--help"}
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text):
            assert option in known, f"{command or 'no command'} has no {option}: {text!r}"


def test_commands_in_messages() -> None:
    for path in PACKAGE.rglob("*.py"):
        for text in texts(path):
            for name in re.findall(r"`optuna-llmbo ([a-z-]+)", text):
                assert name in OPTIONS, text


def test_an_unknown_option_would_be_found(tmp_path: Path) -> None:
    assert "--nonsense" not in ALL
    assert command_of(PACKAGE / "lora" / "export" / "trl.py", "with --dtype") == "export"
    assert command_of(PACKAGE / "promote.py", "`optuna-llmbo export --trial`") == "export"
    assert command_of(PACKAGE / "lora" / "tokens.py", "raise it") is None
