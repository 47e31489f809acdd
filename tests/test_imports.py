"""The structure of the package: light import, and arrows that point one way."""

from __future__ import annotations

import ast
from pathlib import Path
import subprocess
import sys

import pytest

import optuna_llmbo


PACKAGE = Path(optuna_llmbo.__file__).parent

# importer -> what it may import; docs/architecture.md draws it
ARROWS = {
    "__init__": {"sampler", "lora"},
    "errors": set(),
    "versions": set(),
    "compat": set(),
    "torch_state": set(),
    "axis": set(),
    "space": {"axis", "errors"},
    "targets": set(),
    "design": {"targets"},
    "covariance": set(),
    "gguf_file": {"errors"},
    "llm": {"errors", "gguf_file"},
    "toml_file": {"errors"},
    "knowledge": {"errors", "toml_file"},
    "marks": set(),
    "outcome": {"compat", "marks"},
    "plan": {"compat", "space"},
    "history": {"compat", "marks", "plan", "space"},
    "structure": {"space"},
    "candidates": {"space", "structure"},
    "transfer": {"errors", "history", "space"},
    "observations": {"history", "space", "targets", "transfer"},
    "prior": {"errors", "knowledge", "space"},
    "start": {"axis", "candidates", "history", "knowledge", "space", "transfer"},
    "prompt": {"knowledge", "space"},
    "features": {"knowledge", "space"},
    "trie": set(),
    "body": {"errors", "llm"},
    "trie_attention": {"trie"},
    "trie_reader": {"body", "llm", "trie", "trie_attention"},
    "plain_reader": {"body", "llm", "trie"},
    "embedding_cache": {"errors", "llm", "trie"},
    "encoder": {
        "body",
        "embedding_cache",
        "errors",
        "llm",
        "plain_reader",
        "torch_state",
        "trie",
        "trie_reader",
    },
    "text_view": {"design", "encoder"},
    "surrogate": {"covariance", "design", "encoder", "errors", "text_view", "torch_state"},
    "feasibility": {"covariance", "surrogate"},
    "cost": {"covariance", "surrogate", "torch_state"},
    "joint_posterior": set(),
    "acquisition": {"joint_posterior", "torch_state"},
    "suggest": {
        "acquisition",
        "candidates",
        "cost",
        "covariance",
        "design",
        "encoder",
        "feasibility",
        "features",
        "history",
        "knowledge",
        "observations",
        "prior",
        "space",
        "surrogate",
        "torch_state",
        "transfer",
    },
    "provenance": {"compat", "suggest"},
    "advisor": {
        "acquisition",
        "body",
        "candidates",
        "compat",
        "covariance",
        "design",
        "encoder",
        "errors",
        "history",
        "knowledge",
        "llm",
        "outcome",
        "prior",
        "prompt",
        "space",
        "structure",
        "suggest",
        "torch_state",
        "transfer",
    },
    "planner": {
        "advisor",
        "axis",
        "candidates",
        "compat",
        "errors",
        "history",
        "plan",
        "provenance",
        "space",
        "start",
        "structure",
        "suggest",
        "transfer",
    },
    "sampler": {
        "acquisition",
        "advisor",
        "axis",
        "body",
        "compat",
        "covariance",
        "design",
        "knowledge",
        "llm",
        "plan",
        "planner",
        "prior",
        "provenance",
        "structure",
        "suggest",
        "transfer",
    },
    "lora": {"axis", "compat", "errors", "llm", "marks", "space", "toml_file"},
    "standing": {"lora", "outcome"},
    "promote": {"errors", "lora", "sampler", "standing"},
    "sparkline": set(),
    "live": {"lora", "outcome", "prompt", "sparkline", "standing"},
    "insight": {
        "axis",
        "candidates",
        "compat",
        "covariance",
        "errors",
        "history",
        "lora",
        "outcome",
        "provenance",
        "sampler",
        "structure",
        "suggest",
        "torch_state",
    },
    "figures": {"errors", "insight", "outcome"},
    "overview": {"compat", "outcome", "prompt", "provenance", "versions"},
    "dashboard": {"compat", "errors", "figures", "insight", "overview", "sampler"},
    "report": {"errors", "figures", "insight", "overview", "prompt", "sampler"},
    "cli": {
        "advisor",
        "compat",
        "dashboard",
        "embedding_cache",
        "errors",
        "live",
        "llm",
        "lora",
        "outcome",
        "promote",
        "prompt",
        "report",
        "sampler",
        "standing",
        "versions",
    },
}
# third-party package -> the modules that may import it
KNOWN_BY = {
    "transformers": {"gguf_file", "llm", "trie_attention", "encoder", "lora"},
    "peft": {"lora"},
    "datasets": {"lora"},
    "rich": {"cli", "live"},
    "typer": {"cli"},
    "plotly": {"figures", "report"},
    "gpytorch": {"covariance", "surrogate", "text_view", "joint_posterior"},
    "botorch": {"surrogate", "text_view", "feasibility", "joint_posterior", "acquisition"},
}


def imports_of(path: Path) -> set[str]:
    """Dotted names that a file imports, at the top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def module_of(path: Path) -> str:
    """The file's name, or the folder's for the files of a subpackage."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows(path: Path) -> None:
    importer = module_of(path)
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "optuna_llmbo" and len(parts) > 1:
            imported = parts[1]
            assert imported == importer or imported in ARROWS[importer], name
        if parts[0] in KNOWN_BY:
            assert importer in KNOWN_BY[parts[0]], name


def test_no_cycle() -> None:
    rest = {name: set(targets) for name, targets in ARROWS.items()}
    while rest:
        leaves = {name for name, targets in rest.items() if not targets & rest.keys()}
        assert leaves, f"a cycle among {sorted(rest)}"
        for leaf in leaves:
            del rest[leaf]


def test_only_the_terminal_modules_print() -> None:
    for path in FILES:
        calls = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
        ]
        printed = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
        assert not printed, path


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, optuna_llmbo; "
        "print([m for m in ('torch', 'transformers', 'optuna') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_public_names() -> None:
    assert {"LLMBOSampler", "LoRAObjective"} <= set(dir(optuna_llmbo))
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = optuna_llmbo.nothing_like_it  # type: ignore[attr-defined]
