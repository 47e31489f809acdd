"""The two pictures of docs/dashboard.md, of a study that is there: `make screenshots`."""

from __future__ import annotations

import argparse
from pathlib import Path
import tempfile
from typing import Any

import optuna
from PIL import Image

from optuna_llmbo.dashboard import publish
from optuna_llmbo.report import write_report
from tests.browser import headless


IMAGES = Path(__file__).parents[2] / "docs" / "images"
MOST_BYTES = 250_000


def main() -> None:
    """Take both pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", default="sqlite:///demo.db")
    parser.add_argument("--study", default="demo")
    options = parser.parse_args()
    path = headless.executable()
    if path is None:
        parser.error(f"no browser: none of {', '.join(headless.NAMES)} is installed")
    memory = optuna.storages.InMemoryStorage()
    optuna.copy_study(
        from_study_name=options.study, from_storage=options.storage, to_storage=memory
    )
    study = optuna.load_study(study_name=options.study, storage=memory)
    IMAGES.mkdir(parents=True, exist_ok=True)
    with headless.chromium(path) as browser, tempfile.TemporaryDirectory() as folder:
        names = publish(study)
        with headless.dashboard(study) as address:
            _take_dashboard(browser, address, names)
        _take_report(browser, write_report(study, Path(folder) / "report.html"))


def _take_dashboard(browser: Any, address: str, names: list[str]) -> None:
    """What `publish` has put between the dashboard's own figures."""
    page = browser.new_page(viewport={"width": 1400, "height": 1540})
    page.goto(address)
    plots = [page.locator(f'[id="user-defined-plot:{name}"]') for name in names]
    for plot in plots:
        plot.locator(".main-svg").first.wait_for()
    top = min(plot.bounding_box()["y"] for plot in plots)
    page.mouse.move(700, 600)
    page.mouse.wheel(0, top - 90)
    page.mouse.move(0, 0)  # or plotly's buttons are over a figure
    page.wait_for_timeout(1000)
    _save(page, IMAGES / "dashboard.png")


def _take_report(browser: Any, path: Path) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 1400})
    page.goto(path.as_uri())
    page.locator(".main-svg").last.wait_for()
    _save(page, IMAGES / "report.png")


def _save(page: Any, path: Path) -> None:
    """A picture of what the page shows, in 256 colours."""
    page.screenshot(path=path)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    if path.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{path} has {path.stat().st_size} bytes, more than {MOST_BYTES}.")
    print(f"Wrote {path}")


if __name__ == "__main__":
    main()
