"""What the README says is what the project does."""

from __future__ import annotations

import ast
from pathlib import Path
import re
import subprocess
import sys

import pytest


ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_results_are_those_of_the_benchmark() -> None:
    command = [sys.executable, "benchmarks/demo_search.py", "--report"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    rows = result.stdout.strip().splitlines()
    assert len(rows) >= 5  # a heading and three samplers
    for row in rows:
        assert row in README


def test_the_encoders_figures_are_those_of_the_benchmark() -> None:
    command = [sys.executable, "benchmarks/encoder.py", "--report"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    assert result.stdout.strip() in text


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python_blocks_parse_and_name_what_exists(block: str) -> None:
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module == "optuna_llmbo":
            module = __import__("optuna_llmbo")
            assert all(hasattr(module, alias.name) for alias in node.names)


def test_links_and_make_targets_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|\$ )make ([a-z]+)", README):
        assert f"\n{target}:" in makefile, target


def test_packs_in_the_docs_load(tmp_path: Path) -> None:
    from optuna_llmbo.knowledge import load_pack

    text = (ROOT / "docs" / "knowledge.md").read_text()
    (block,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "espresso.toml"
    path.write_text(block)
    pack = load_pack(path)
    assert [quantity.name for quantity in pack.derived] == ["extraction"]
    assert pack.recommended[0].values == {"grind": 300, "seconds": 27}
