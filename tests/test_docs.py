"""What the README and docs/ say works: every code block is run, or checked and says why not."""

from __future__ import annotations

from pathlib import Path
import re

import pytest

from docs_tools import figures
import optuna_llmbo
from tests import docs_blocks
from tests.docs_blocks import Block
from tests.docs_blocks import ROOT
from tests.source_texts import texts


pytestmark = pytest.mark.long


PAGES = [
    page for page in docs_blocks.pages() if any(b.reason is None for b in docs_blocks.blocks(page))
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_blocks_run(
    page: Path, tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    monkeypatch.chdir(tmp_path)
    docs_blocks.furnish(tmp_path, tiny_llm)
    docs_blocks.run_page(page, monkeypatch)


@pytest.mark.parametrize(
    "block", list(docs_blocks.not_run()), ids=lambda block: f"{block}: {block.reason}"
)
def test_blocks_that_are_not_run(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    docs_blocks.check(block)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "from optuna_llmbo import NoSuchThing\n"),
        ("python", "print(\n"),
        ("console", "$ optuna-llmbo tune --no-such-option 1\n"),
        ("console", "$ make no-such-target\n"),
        ("console", "$ python -m benchmarks.no_such_module\n"),
        ("console", "$ python -m benchmarks.pruning --no-such-option\n"),
        ("console", "$ for x in\n"),
        ("yaml", "a: [\n"),
        ("xml", "<a/>\n"),
    ],
)
def test_checks_find_mistakes(
    language: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception):  # noqa: B017  (each has its own)
        docs_blocks.check(Block("page.md", 1, language, text, "a reason"))


def test_no_block_is_overlooked() -> None:
    """Blocks without a language are figures in letters, which only the architecture has."""
    for page in docs_blocks.pages():
        fences = re.findall(r"^\s*```.*$", page.read_text(), re.MULTILINE)
        n_figures = 3 if page.name == "architecture.md" else 0
        assert len(fences) == 2 * (len(docs_blocks.blocks(page)) + n_figures), page


def test_messages_of_the_troubleshooting_page_are_the_packages() -> None:
    package = Path(optuna_llmbo.__file__).parent
    found = [text for path in package.rglob("*.py") for text in texts(path)]
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    quoted = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(quoted) > 20
    missing = [one for one in quoted if not any(_says(text, one) for text in found)]
    assert missing == []


def _says(text: str, quoted: str) -> bool:
    parts = (re.escape(part) for part in quoted.split("..."))
    return re.search(".*".join(parts), text, re.DOTALL) is not None


def test_the_pack_of_the_guide_is_the_one_that_was_measured() -> None:
    text = (ROOT / "docs" / "knowledge.md").read_text()
    assert f"# svm.toml\n{(ROOT / 'examples' / 'svm.toml').read_text()}```" in text


def test_the_figures_can_be_drawn(tmp_path: Path) -> None:
    drawn = {path.name for path in figures.draw(tmp_path)}
    page = (ROOT / "docs" / "method.md").read_text()
    assert drawn == set(re.findall(r"\]\(figures/(\S+\.svg)\)", page))
    assert drawn == {path.name for path in (ROOT / "docs" / "figures").glob("*.svg")}


def test_the_figure_of_the_posterior_marks_the_choice() -> None:
    """The next trial is where the acquisition that is drawn is highest."""
    study, sampler = figures.study_of_rates(6)
    decision = sampler.ask(study, lambda model, candidates: model.decision(candidates[0]))
    chosen = decision.configuration["learning_rate"]
    assert chosen == pytest.approx(figures.suggest_rate(study.ask()))
