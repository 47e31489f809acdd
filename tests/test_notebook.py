"""The notebook does what its kept outputs say, and shows its figures without a network."""

from __future__ import annotations

import re

import nbformat
from nbformat import NotebookNode
import pytest

from docs_tools import notebook


pytestmark = pytest.mark.long


NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


@pytest.fixture(scope="module")
def kept() -> NotebookNode:
    return nbformat.read(notebook.NOTEBOOK, as_version=4)


def printed(of: NotebookNode) -> list[str]:
    """The lines that the cells print."""
    return [line for o in notebook.outputs(of) for line in o.get("text", "").splitlines()]


def test_a_run_prints_what_is_kept(kept: NotebookNode) -> None:
    """The same words everywhere; the same numbers where the model, whose choices may differ on
    another machine in the last digit of a sum, has not chosen yet."""
    run = notebook.execute(kept)
    lines = printed(kept)
    assert [NUMBER.sub("", line).split() for line in printed(run)] == [
        NUMBER.sub("", line).split() for line in lines
    ]
    early = [i for i, line in enumerate(lines) if "default" in line or "start-up" in line]
    assert len(early) == 6
    for i in early:
        ran, expected = (NUMBER.findall(text[i]) for text in (printed(run), lines))
        assert list(map(float, ran)) == pytest.approx(list(map(float, expected)), rel=0.02)
    drawn = [
        output for output in notebook.outputs(run) if notebook.PLOTLY in output.get("data", {})
    ]
    shown = [output for output in notebook.outputs(kept) if notebook.SVG in output.get("data", {})]
    assert len(drawn) == len(shown) >= 5


def test_the_figures_need_no_network(kept: NotebookNode) -> None:
    assert notebook.NOTEBOOK.stat().st_size < 400_000
    for output in notebook.outputs(kept):
        data = output.get("data", {})
        assert set(data) <= {notebook.SVG}
        links = re.findall(r"(?:href|src)=\"(?!#)([^\"]*)", data.get(notebook.SVG, ""))
        assert not [link for link in links if not link.startswith("data:")]


def test_figures_are_not_drawn_without_chromium(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook.shutil, "which", lambda name: None)  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="chromium, which is not installed"):
        notebook.draw({"data": [], "layout": {}})
