from __future__ import annotations

from pathlib import Path

import pytest

from optuna_llmbo.lora.stdlib_docstrings import INSTRUCTION
from optuna_llmbo.lora.stdlib_docstrings import stdlib_docstrings


SOURCE = '''
class Box:
    @property
    def size(self):
        """How much fits
        in.

        More about it.
        """
        # counted once
        return self._size

    def undocumented(self):
        return 1


def only_documented():
    """There is no body."""


def one_line(): """Too short."""; return 2


async def later(x: int = 3) -> int:
    """Wait."""

    def inner():
        """Inside."""
        return x

    return inner()
'''


def test_takes_documented_functions_apart(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(SOURCE)
    (tmp_path / "copy.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "test_module.py").write_text('def g():\n    """Doc."""\n    return 0\n')
    pairs = dict(stdlib_docstrings(tmp_path))
    assert list(pairs.values()) == ["How much fits in.", "Wait.", "Inside."]
    assert pairs[
        f"{INSTRUCTION}\n\ndef size(self):\n    # counted once\n    return self._size"
    ] == ("How much fits in.")
    assert f"{INSTRUCTION}\n\ndef inner():\n    return x" in pairs


@pytest.mark.long
def test_the_standard_library() -> None:
    pairs = stdlib_docstrings()
    assert len(pairs) > 4000
    assert len({prompt for prompt, _ in pairs}) == len(pairs)
    assert all(prompt.startswith(INSTRUCTION) and response for prompt, response in pairs)
    assert not any('"""' + response in prompt for prompt, response in pairs)
    assert any("def heappushpop" in prompt for prompt, _ in pairs)
