"""What is said once about the package is said once, and its tools agree with each other."""

from __future__ import annotations

from collections.abc import Iterator
import importlib.metadata
from pathlib import Path
import re
import subprocess
import tomllib
from typing import Any

import pytest
import yaml

import optuna_llmbo


ROOT = Path(__file__).parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT: dict[str, Any] = PYPROJECT["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())


def _texts() -> Iterator[tuple[str, str]]:
    """Path and text of the repository's files, without results of benchmarks."""
    listed = ("git", "ls-files", "--cached", "--others", "--exclude-standard")
    try:
        found = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not in a clone of the repository")
    for name in found.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and not name.startswith("benchmarks/"):
            try:
                yield name, path.read_text()
            except UnicodeDecodeError:
                pass  # a picture


def test_the_version_is_written_once() -> None:
    """The wheel takes it from the package. A changelog and an example of a tag may name it."""
    assert PROJECT["dynamic"] == ["version"] and "version" not in PROJECT
    assert PYPROJECT["tool"]["hatch"]["version"]["path"] == "optuna_llmbo/__init__.py"
    assigned = re.compile(r"^ *(__version__|\"?version\"?) *[:=] *[\"']?\d+\.\d", re.MULTILINE)
    assert [name for name, text in _texts() if assigned.search(text)] == [
        "optuna_llmbo/__init__.py"
    ]


def test_the_changelog_has_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    released = re.findall(r"^## (\S+)", text, re.MULTILINE)
    assert released[0] == "Unreleased" and released[1] == optuna_llmbo.__version__
    groups = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert groups <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_installed_version_is_the_packages() -> None:
    assert importlib.metadata.version("optuna-llmbo") == optuna_llmbo.__version__


def test_the_repositorys_address_is_in_pyproject_only() -> None:
    urls = PROJECT["urls"]
    repository = urls["Repository"]
    assert all(url.startswith(repository) for url in urls.values())
    owner_and_name = repository.removeprefix("https://")
    assert [name for name, text in _texts() if owner_and_name in text] == ["pyproject.toml"]


def test_the_wheel_says_that_it_is_typed() -> None:
    """hatchling puts all files of a listed package into the wheel that git does not ignore."""
    package = Path(optuna_llmbo.__file__).parent
    assert (package / "py.typed").read_text() == ""
    assert PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [package.name]
    assert "Typing :: Typed" in PROJECT["classifiers"]


def test_the_workflow_tests_the_oldest_and_the_newest_python() -> None:
    said = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    minors = [int(version.removeprefix("3.")) for version in said]
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert PROJECT["requires-python"] == f">={said[0]}"
    assert PYPROJECT["tool"]["mypy"]["python_version"] == said[0]
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{said[0].replace('.', '')}"
    for job in WORKFLOW["jobs"].values():
        assert job["strategy"]["matrix"]["python"] == [said[0], said[-1]]


def test_the_workflow_runs_what_ci_runs() -> None:
    commands = re.findall(r"^make (\S+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    steps = [step.get("run", "") for job in WORKFLOW["jobs"].values() for step in job["steps"]]
    made = {step.split()[1] for step in steps if step.startswith("make ")}
    assert {"test", "wheel-test"} == set(commands) <= made <= set(_targets())


def test_hooks_run_what_the_constraints_pin() -> None:
    """From the environment that was installed with them, so that no version is repeated."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    programs = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in hooks}
    pinned = re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert programs == {"ruff", "mypy"} <= set(pinned)
    assert all(hook["language"] == "system" for hook in hooks)


def test_make_targets_that_are_named_exist() -> None:
    """In prose too; blocks of commands are checked by tests/docs_blocks.py."""
    pages = [(name, text) for name, text in _texts() if name.endswith(".md")]
    named = {
        (name, target)
        for name, text in pages
        for target in re.findall(r"(?:`|\$ )make ([a-z][a-z-]*)", text)
    }
    assert len(named) > 8
    assert [(name, target) for name, target in named if target not in _targets()] == []


def test_phony_targets_are_targets() -> None:
    (phony,) = re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)", MAKEFILE, re.MULTILINE)
    assert set(phony.replace("\\\n", " ").split()) == set(_targets())


def _targets() -> list[str]:
    """The names of what can be made, without files."""
    rules = re.findall(r"^([a-z][a-z -]*):(?!=)", MAKEFILE, re.MULTILINE)
    return [target for target in dict.fromkeys(name for rule in rules for name in rule.split())]
