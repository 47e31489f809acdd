"""The code blocks of the README and of docs/: which there are, and how they are run.

A block with `<!-- not run: reason -->` on the line before it is not run, only checked. The others
of a page run in order, in a folder that has what pages name; what would take too long for a test
is made smaller here and nowhere else. A block whose first line is `# NAME.py` (or .toml, .yaml) is
that file, and a script only runs where a command of the page runs it.

    python -m tests.docs_blocks    # lists what is not run, and why
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
import json
import math
from pathlib import Path
import re
import shlex
import subprocess
import sys
from typing import Any

import optuna
import pytest
import typer
from typer.testing import CliRunner

from optuna_llmbo import cli
from optuna_llmbo.command.settings_file import SettingsFile
from optuna_llmbo.knowledge import load_pack
from optuna_llmbo.lora.data import load_records
from optuna_llmbo.space.space_file import read_space
from optuna_llmbo.trainer.trl_file import read_trl_file


ROOT = Path(__file__).parents[1]

SMALLER = {
    r"\bn_trials=\d+": "n_trials=3",
    r"(?<=[\"'])python(?= \w+\.py)": sys.executable,
    r"\.plot\.show\(\)": ".plot.to_dict()",
    r"--trials \d+": "--trials 2",
    r"\bembedded\b(?=[\" ])": "my-model",
    r"\bmy-folder\b": "my-model",
    r"\bstdlib-docstrings\b": "my.jsonl",
    r"\b(proxy[= ])\d\d\d\b": r"\g<1>50",
    r"(--test |test=)\d+": r"\g<1>10",
}
"""What a block says, as a pattern, and what is run in its place."""

OPTIONS: dict[str, dict[str, str | None]] = {
    "tune": {"--trials": "2", "--reports": "1", "--validation": "8", "--device": "cpu"},
    "search": {"--heartbeat": "1", "--sampler": "random"},
    "proxy-check": {"--configs": "4", "--fractions": "0.5", "--device": "cpu"},
    "dashboard": {"--publish-only": None},
    "promote": {"--top": "1", "--seeds": "1", "--device": "cpu"},
}
"""Options that a command gets unless it has them; None for one without a value."""

AFTER_A_SEARCH = ("docs/dashboard.md", "docs/figures.md")
"""Pages that begin where a search has ended: with a study in lora.db."""

NOT_RUN = {"pip": "installs packages"}
"""Programs that are not run in any block, and why; a block of others says so itself."""

N_EXAMPLES = 120

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_FILE_NAME = re.compile(r"# (\S+\.(?:toml|py|yaml))\n")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    """Of its first line of text, from 1."""
    language: str
    text: str
    reason: str | None
    """Why it is not run; None if it is."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The commands of a console block, each with its continued lines."""
        lines = re.findall(r"^\$ ((?:.*\\\n)*.*)", self.text, re.MULTILINE)
        return [line.replace("\\\n", " ") for line in lines]


def pages() -> list[Path]:
    """The README, how to contribute, and all pages that are written by hand."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """All blocks of a page that say what language they are in."""
    text, name = page.read_text(), page.relative_to(ROOT).as_posix()
    return [
        Block(
            name,
            text[: found.start("text")].count("\n") + 1,
            *found.group("language", "text", "reason"),
        )
        for found in _BLOCK.finditer(text)
        if found["language"]
    ]


DATA: dict[str, Callable[[int], dict[str, str]]] = {
    "my.jsonl": lambda i: {
        "prompt": f"count on from {i}",
        "response": f"{i + 1} " * (i % 4 + 1),
        "topic": f"t{i % 3}",
    },
    "gsm8k.jsonl": lambda i: {"question": f"{i} and 1?", "answer": f"#### {i + 1}"},
    "exam.jsonl": lambda i: {"prompt": f"question {i}?", "response": "ABCD"[i % 4]},
    "code.jsonl": lambda i: {
        "prompt": f"Write f that returns {i}.",
        "response": f"def f(): return {i}",
        "tests": f"assert f() == {i}",
    },
}
"""The files of data that pages name, a function from the row's number to the row."""

FOLDERS: dict[str, Callable[[int], dict[str, str]]] = {
    "my-data": lambda i: {"prompt": f"count on from {i}", "completion": f"{i + 1}"},
    "my-pairs": lambda i: {
        "prompt": f"count on from {i}", "chosen": f"{i + 1}", "rejected": f"{i - 1}",
    },
}  # fmt: skip
"""The folders of data that TRL's files name, as `DATA`."""


def furnish(folder: Path, model: Path) -> None:
    """Put into a folder what pages take to be there."""
    (folder / "my-model").symlink_to(model)
    for name in FOLDERS:
        (folder / name).mkdir()
    files = {**DATA, **{f"{name}/train.jsonl": row for name, row in FOLDERS.items()}}
    for name, row in files.items():
        lines = [json.dumps(row(i)) + "\n" for i in range(N_EXAMPLES)]
        (folder / name).write_text("".join(lines))


def search() -> None:
    """Leave a study of numbers in the current folder, as a search of an hour would."""
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(study_name="lora", storage="sqlite:///lora.db", sampler=sampler)
    study.optimize(
        lambda trial: (
            (math.log10(trial.suggest_float("learning_rate", 1e-6, 1e-2, log=True)) + 4) ** 2
            + trial.suggest_float("lora_dropout", 0, 0.3)
        ),
        n_trials=8,
    )


def smaller(text: str) -> str:
    """A block's text with what would take too long made smaller."""
    for pattern, replacement in SMALLER.items():
        text = re.sub(pattern, replacement, text)
    return text


def run_page(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a page's blocks in the current folder, python in one namespace."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    if page.relative_to(ROOT).as_posix() in AFTER_A_SEARCH:
        search()
    for block in (one for one in blocks(page) if one.reason is None):
        if block.language == "console":
            for command in block.commands:
                run_command(command, block, monkeypatch)
        else:
            _run(block, namespace)


def _run(block: Block, namespace: dict[str, Any]) -> None:
    """Write the file that a block is, if it is one; else run or load it."""
    named = _FILE_NAME.match(block.text)
    if named:
        Path(named[1]).write_text(block.text)
    if block.language != "python":
        _load(block)
        return
    code = compile("\n" * (block.line - 1) + smaller(block.text), block.page, "exec")
    if not named:  # else it is a script, which a command of the page runs
        exec(code, namespace)


def run_command(command: str, block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one command of a console block, in this process."""
    program, *arguments = shlex.split(smaller(command), comments=True)
    if program == "export":
        for variable, _, value in (argument.partition("=") for argument in arguments):
            monkeypatch.setenv(variable, value)
        return
    if program in NOT_RUN:
        return
    assert program == "optuna-llmbo", f"{block}: {program} is not run here: mark the block"
    # where TRL trains, the device is the environment's
    is_trl = "--trl" in arguments or (arguments[0], block.page) == ("promote", "docs/trainer.md")
    for option, value in OPTIONS.get(arguments[0], {}).items():  # type: ignore[assignment]
        if option not in (*arguments, "--device" if is_trl else ""):
            arguments += [option] if value is None else [option, value]
    result = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, f"{block}: {command}\n{result.output}\n{result.exception!r}"


def check(block: Block) -> None:
    """Check a block that is not run: it parses, and what it names exists."""
    if block.language == "python":
        _check_imports(ast.parse(block.text))
    elif block.language == "console":
        script = "\n".join(block.commands)
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        for command in block.commands:
            _check_command(shlex.split(command, comments=True), str(block))
    else:
        _load(block)


def _check_imports(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("optuna_llmbo"):
            module = __import__(node.module or "", fromlist=["_"])
            assert all(hasattr(module, alias.name) for alias in node.names)


def _check_command(words: list[str], where: str) -> None:
    """What is the project's own in a command: its command line, its modules, its make targets."""
    flags = {word.split("=")[0] for word in words if word.startswith("--")}
    match words:
        case ["optuna-llmbo", name, *_]:
            assert flags <= command_options()[name], where
        case ["make", *targets]:
            makefile = (ROOT / "Makefile").read_text()
            names = [target for target in targets if "=" not in target]
            assert all(f"\n{name}:" in makefile for name in names), where
        case [python, "-m", module, *_] if python.endswith("python") and _source(module):
            assert flags <= _flags(_source(module)), where
        case [python, path, *_] if python.endswith("python") and path.startswith("benchmarks"):
            assert flags <= _flags(ROOT / path), where


def command_options() -> Mapping[str, set[str]]:
    """The options of each command of `optuna-llmbo`."""
    group: Any = typer.main.get_command(cli.app)
    return {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in group.commands.items()
    }


def _source(module: str) -> Path | None:
    place = ROOT / module.replace(".", "/")
    path = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
    assert path.exists() or module.split(".")[0] not in ("benchmarks", "docs_tools"), module
    return path if path.exists() else None


def _flags(path: Path | None) -> set[str]:
    """The options that a script knows, as they stand in its source."""
    assert path is not None and path.exists(), path
    return set(re.findall(r"\"(--[\w-]+)\"", path.read_text()))


def _load(block: Block) -> None:
    """Have files of data and settings read by what reads them."""
    if block.language == "toml":
        path = Path("block.toml")
        path.write_text(block.text)
        load_pack(path) if "[pack]" in block.text else read_space(path)
    elif block.language == "yaml":
        path = Path("block.yaml")
        path.write_text(block.text)
        if block.page.endswith("trainer.md"):
            read_trl_file(path, "dpo" if "beta:" in block.text else "sft").parsed()
        else:
            SettingsFile(path)
    elif block.language == "json":
        Path("block.jsonl").write_text(block.text)
        assert load_records("block.jsonl")
    else:
        raise AssertionError(f"{block}: nothing here can check a block of {block.language}")


def not_run() -> Iterator[Block]:
    """The blocks of all pages that are not run."""
    return (block for page in pages() for block in blocks(page) if block.reason is not None)


if __name__ == "__main__":
    for program, why in NOT_RUN.items():
        print(f"{program}, wherever it stands: {why}")
    for one in not_run():
        print(f"{one}: {one.reason}")
