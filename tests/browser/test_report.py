"""The report in a browser: opened as a file, on a screen, on a phone and on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from optuna_llmbo.figures import draw
from optuna_llmbo.figures import Figure
from optuna_llmbo.insight import examine
from optuna_llmbo.report import write_report
from tests import lora_like
from tests.browser.conftest import watch
from tests.browser.conftest import Watched


pytestmark = pytest.mark.slow

SCREEN = {"width": 1200, "height": 900}
PHONE = {"width": 360, "height": 740}
PAPER = {"width": 702, "height": 1000}
"""A4 less its margins, at 96 dots an inch."""


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    return lora_like.make_study()


@pytest.fixture(scope="module")
def figures(study: optuna.Study) -> list[Figure]:
    return draw(examine(study))


@pytest.fixture(scope="module")
def report(study: optuna.Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(study, tmp_path_factory.mktemp("report") / "report.html")


def opened(browser: Any, path: Path, **options: Any) -> Watched:
    watched = watch(browser.new_context(**options))
    watched.page.goto(path.as_uri())
    return watched


def luminance(page: Any, element: str, colour: str) -> float:
    """Of a computed colour, from 0 to 255."""
    script = f"e => getComputedStyle(e).{colour}.match(/[0-9.]+/g).slice(0, 3).map(Number)"
    red, green, blue = page.locator(element).first.evaluate(script)
    return float(0.299 * red + 0.587 * green + 0.114 * blue)


@pytest.mark.parametrize(
    ("scheme", "size"), [("light", SCREEN), ("dark", SCREEN), ("dark", PHONE)]
)
def test_on_a_screen(
    browser: Any,
    figures: list[Figure],
    report: Path,
    screenshots: Path,
    scheme: str,
    size: dict[str, int],
) -> None:
    watched = opened(browser, report, viewport=size, color_scheme=scheme)
    page = watched.page
    for figure in figures:
        plot = page.locator(f'[id="{figure.name}"]')
        plot.locator(".main-svg").first.wait_for()
        box, inside = plot.bounding_box(), plot.locator(".main-svg").first.bounding_box()
        assert inside["width"] <= box["width"] + 1 <= size["width"]
        assert page.locator(f"#{figure.name}-title").inner_text() == figure.title
        text = page.locator(f"#{figure.name}-caption").inner_text()
        assert figure.caption in text and figure.finding in text
    for table in ("counts", "best-trials", "ranges", "all-trials", "versions"):
        assert page.locator(f"#{table}").is_visible()
    width = page.evaluate("document.documentElement.scrollWidth")
    name = f"report-{scheme}-{size['width']}.png"
    page.screenshot(path=screenshots / name, full_page=True)
    assert width <= size["width"]
    ground = luminance(page, "body", "backgroundColor")
    text = luminance(page, ".plot .xtick text", "fill")
    assert (ground > 200 and text < 60) if scheme == "light" else (ground < 60 and text > 200)
    assert (watched.errors, watched.requests) == ([], [])
    page.context.close()


def test_on_paper(browser: Any, report: Path, screenshots: Path) -> None:
    """Dark on the screen, light on paper, and nothing cut at its edge."""
    watched = opened(browser, report, viewport=SCREEN, color_scheme="dark")
    page = watched.page
    page.locator(".main-svg").first.wait_for()
    pdf = page.pdf(path=screenshots / "report.pdf", prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF")
    page.set_viewport_size(PAPER)
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    for svg in page.locator(".plot .main-svg:first-child").all():
        box = svg.bounding_box()
        assert box["x"] + box["width"] <= PAPER["width"]
    for table in page.locator("table").all():
        assert table.bounding_box()["width"] <= PAPER["width"]
    assert luminance(page, ".plot .xtick text", "fill") < 60
    assert luminance(page, "body", "backgroundColor") > 200
    assert (watched.errors, watched.requests) == ([], [])
    page.context.close()


@pytest.mark.usefixtures("model_not_asked")
def test_names_with_markup_do_nothing(browser: Any, tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    study = optuna.create_study(study_name=evil)
    study.set_metric_names([evil])
    study.optimize(lambda trial: trial.suggest_float(evil, 0, 1), n_trials=4)
    watched = opened(browser, write_report(study, tmp_path / "report.html"), viewport=SCREEN)
    asked: list[str] = []
    watched.page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))  # type: ignore[func-returns-value]
    watched.page.locator(".main-svg").first.wait_for()
    assert watched.page.locator("img").count() == 0
    assert (asked, watched.errors, watched.requests) == ([], [], [])
    watched.page.context.close()
