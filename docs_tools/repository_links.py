"""MkDocs hook for links from pages to files outside docs/.

A page links to `[the script](../benchmarks/race/report.py)`, which works in the repository. On the
site, a linked file becomes a page under repository/: Markdown as it is, source text in a block, a
folder as its README or a list of its files. Pictures and data are copied. The links of notebooks,
which MkDocs does not touch, are adapted too. The navigation may also name a page under
repository/, as it does CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
import json
import os
from pathlib import Path
from pathlib import PurePosixPath
import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page


PLACE = PurePosixPath("repository")
"""Place on the site of files outside docs/."""

_DOCS = PurePosixPath("docs")
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)#\s]+)")
_HREF = re.compile(r"(?<=href=\")(?!\w+:|#|/)([^\"#]+)")
_FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LANGUAGES = {".py": "python", ".toml": "toml", ".txt": "text", ".json": "json", "": "text"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that the navigation names and pages link to, and the files they link to."""
    root = _root(config)
    waiting = [path for file in files.documentation_pages() for path in _linked(root, file)]
    waiting += _in_navigation(config.nav)
    seen: set[PurePosixPath] = set()
    while waiting:
        path = waiting.pop()
        if path not in seen and not path.is_relative_to(_DOCS):
            seen.add(path)
            file = _file(root, path, config)
            files.append(file)
            waiting += _linked(root, file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Adapt a page's links to the files' places on the site."""
    root, here = _root(config), PurePosixPath(page.file.src_uri)

    def replace(match: re.Match[str]) -> str:
        target = _target(root, here, match[1])
        if target is None:
            return match[1]  # MkDocs warns about it
        return os.path.relpath(_uri(root, target), here.parent)

    return _outside_code(markdown, lambda text: _LINK.sub(replace, text))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Adapt a notebook's links to the files' places on the site."""
    root, here = _root(config), PurePosixPath(page.file.src_uri)

    def replace(match: re.Match[str]) -> str:
        target = _target(root, here, match[1])
        file = target and files.get_file_from_path(str(_uri(root, target)))
        return file.url_relative_to(page.file) if file else match[1]

    return _HREF.sub(replace, html) if here.suffix == ".ipynb" else html


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).parent


def _in_navigation(entry: Any) -> list[PurePosixPath]:
    """List the files of the repository that a part of the navigation names."""
    if isinstance(entry, str):
        path = PurePosixPath(entry)
        return [path.relative_to(PLACE)] if path.is_relative_to(PLACE) else []
    parts = entry.values() if isinstance(entry, dict) else entry or []
    return [path for part in parts for path in _in_navigation(part)]


def _linked(root: Path, file: File) -> list[PurePosixPath]:
    """List the files of the repository that a page links to."""
    found: list[PurePosixPath] = []

    def collect(text: str) -> str:
        targets = (
            _target(root, PurePosixPath(file.src_uri), link) for link in _LINK.findall(text)
        )
        found.extend(target for target in targets if target is not None)
        return text

    _outside_code(_text(file), collect)
    return found


def _text(file: File) -> str:
    """Return the Markdown of a page or a notebook."""
    match PurePosixPath(file.src_uri).suffix:
        case ".md":
            return file.content_string
        case ".ipynb":
            cells = json.loads(file.content_string)["cells"]
            return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return ""


def _target(root: Path, uri: PurePosixPath, link: str) -> PurePosixPath | None:
    """Resolve a page's link to a path in the repository; None if nothing is there.

    Args:
        root: root of the repository.
        uri: URI of the page on the site.
        link: the link as written in the page.
    """
    origin = uri.relative_to(PLACE) if uri.is_relative_to(PLACE) else _DOCS / uri
    path = PurePosixPath(os.path.normpath(origin.parent / link))
    if not (root / path).exists() or path.parts[0] == "..":
        return None
    readme = path / "README.md"
    return readme if (root / readme).exists() else path


def _uri(root: Path, path: PurePosixPath) -> PurePosixPath:
    """Return the place on the site of a file or folder of the repository."""
    if path.is_relative_to(_DOCS):
        return path.relative_to(_DOCS)
    if (root / path).is_dir():
        return PLACE / path / "index.md"
    return PLACE / (f"{path}.md" if path.suffix in _LANGUAGES else path)


def _file(root: Path, path: PurePosixPath, config: MkDocsConfig) -> File:
    uri, place = str(_uri(root, path)), root / path
    if place.is_dir():
        return File.generated(config, uri, content=_listing(place, path))
    if path.suffix in _LANGUAGES:
        block = f"```{_LANGUAGES[path.suffix]}\n{place.read_text().rstrip()}\n```\n"
        return File.generated(config, uri, content=f"# {path}\n\n{block}")
    return File.generated(config, uri, abs_src_path=str(place))


def _listing(folder: Path, path: PurePosixPath) -> str:
    """List a folder's files; for modules, with the first line of their docstring."""
    lines = [f"# {path}", ""]
    for file in sorted(folder.iterdir()):
        if not file.name.startswith(("__", ".")):
            lines.append(f"- `{file.name}`{_first_line(file)}")
    return "\n".join(lines) + "\n"


def _first_line(file: Path) -> str:
    if file.suffix != ".py":
        return ""
    documentation = ast.get_docstring(ast.parse(file.read_text())) or ""
    return f": {documentation.splitlines()[0]}" if documentation else ""


def _outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """Change the text outside fenced blocks; every second part is a block."""
    parts = _FENCED.split(markdown)
    parts[::2] = map(change, parts[::2])
    return "".join(parts)
