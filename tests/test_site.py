"""The documentation as a site: it builds without a warning, holds together, and loads nothing."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
import os
from pathlib import Path
import re
import subprocess
import sys
from urllib.parse import unquote
from urllib.parse import urlsplit

import pytest

from docs_tools import commands
from docs_tools import repository_links
from optuna_llmbo import CommandObjective
from optuna_llmbo import LLMBOSampler
from optuna_llmbo import LoRAObjective


pytestmark = pytest.mark.long


ROOT = Path(__file__).parent.parent

_LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "embed": "src",
    "object": "data",
}
_LINKS_THAT_LOAD_NOTHING = {"canonical", "next", "prev"}
_OF_STYLES = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")


class _Page(HTMLParser):
    """What a page has: anchors, links to other pages, addresses that it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.classes: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors.add(values.get("id", ""))
        self.classes.update(values.get("class", "").split())
        self.loaded += _addresses(values.get("style", ""))
        if tag in _LOADED and _LOADED[tag] in values:
            self.loaded.append(values[_LOADED[tag]])
        if tag == "link" and values.get("rel") not in _LINKS_THAT_LOAD_NOTHING:
            self.loaded.append(values["href"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])


def _addresses(style: str) -> list[str]:
    return [one or other for one, other in _OF_STYLES.findall(style)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. `--strict` makes an error of each warning of MkDocs and its plugins."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    variables = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr and "griffe" not in result.stderr, result.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, _Page]:
    return {path: _Page(path) for path in sorted(site.rglob("*.html"))}


def _is_elsewhere(address: str) -> bool:
    return bool(urlsplit(address).scheme in ("http", "https") or urlsplit(address).netloc)


def _broken(site: Path, pages: dict[Path, _Page]) -> Iterator[str]:
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            place = site if parts.path.startswith("/") else path.parent
            target = (place / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                yield f"{path.relative_to(site)}: {link}"
            elif parts.fragment and target in pages:
                if unquote(parts.fragment) not in pages[target].anchors:
                    yield f"{path.relative_to(site)}: {link}"


def test_links_and_anchors_lead_somewhere(site: Path, pages: dict[Path, _Page]) -> None:
    assert len(pages) > 20
    assert sum(len(page.links) for page in pages.values()) > 500
    assert list(_broken(site, pages)) == []


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, _Page]) -> None:
    loaded = {address for page in pages.values() for address in page.loaded}
    assert any(address.endswith(".css") for address in loaded)
    for style in site.rglob("*.css"):
        loaded.update(_addresses(style.read_text()))
    assert [address for address in loaded if _is_elsewhere(address)] == []


def test_nothing_that_the_themes_script_would_fetch(pages: dict[Path, _Page]) -> None:
    """The theme gets Mermaid, and a repository's stars, from elsewhere if a page has these."""
    classes = {name for page in pages.values() for name in page.classes}
    assert not classes & {"mermaid", "md-source"}


_OF_CLASSES = (
    ("sampler", LLMBOSampler),
    ("objective", LoRAObjective),
    ("command", CommandObjective),
)


def test_all_arguments_are_on_the_site(site: Path) -> None:
    for name, made in _OF_CLASSES:
        text = (site / "reference" / f"{name}.html").read_text()
        arguments = set(made.__init__.__code__.co_varnames[1 : 1 + _n_arguments(made)])
        documented = set(re.findall(r"<code>(\w+)</code>", text))
        assert len(arguments) > 10 and arguments <= documented, arguments - documented


def _n_arguments(made: type) -> int:
    code = made.__init__.__code__  # type: ignore[misc]
    return code.co_argcount + code.co_kwonlyargcount - 1


def test_all_options_are_on_the_site(site: Path) -> None:
    text = (site / "reference" / "cli.html").read_text()
    for name, command in commands.commands().items():
        assert f"optuna-llmbo {name}" in text
        assert all(flag in text for option in command.params for flag in option.opts)
    assert "<code>hyperband</code>" in text and "DATA|COUNT" in text


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("index.md", "../benchmarks/race/methods.py", "benchmarks/race/methods.py"),
        ("benchmarks/race.md", "../../benchmarks/race/run.py", "benchmarks/race/run.py"),
        ("index.md", "../benchmarks/lora_table", "benchmarks/lora_table/README.md"),
        ("reference/cli.md", "../lora.md", "docs/lora.md"),
        ("repository/README.md", "docs/lora.md", "docs/lora.md"),
        ("index.md", "../benchmarks/no_such_file.py", None),
        ("index.md", "../../elsewhere", None),
        ("benchmarks/race.md", "../benchmarks/race/run.py", None),
    ],
)
def test_what_a_link_means(page: str, link: str, expected: str | None) -> None:
    target = repository_links._target(ROOT, repository_links.PurePosixPath(page), link)  # type: ignore[attr-defined]
    assert (target and str(target)) == expected


def test_links_in_code_stay_as_they_are() -> None:
    text = "[a](../b.py)\n\n```python\nx = y[a](../b.py)\n```\n[c](../d.py)\n"
    changed = repository_links._outside_code(text, lambda part: part.replace("..", "there"))
    assert changed.count("there") == 2 and "y[a](../b.py)" in changed
