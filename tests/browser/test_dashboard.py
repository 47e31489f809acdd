"""optuna-dashboard in a browser, on a study as the demo leaves it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore
import optuna_dashboard
import pytest

from optuna_llmbo.dashboard import publish
from tests import lora_like
from tests.browser import headless
from tests.browser.conftest import watch


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> optuna.Study:
    folder = tmp_path_factory.mktemp("dashboard")
    study = lora_like.make_study(f"sqlite:///{folder}/study.db", adapters=folder / "adapters")
    optuna_dashboard.save_note(study, "What the user wrote.")
    (folder / "store").mkdir()
    store = FileSystemArtifactStore(str(folder / "store"))
    study.set_user_attr("figures", publish(study, artifact_store=store))
    study.set_user_attr("store", str(folder / "store"))
    return study


@pytest.fixture(scope="module")
def address(study: optuna.Study) -> Iterator[str]:
    """Of the study's page, while the dashboard runs."""
    store = FileSystemArtifactStore(study.user_attrs["store"])
    with headless.dashboard(study, store) as address:
        yield address


def test_every_figure_is_drawn(
    browser: Any, address: str, study: optuna.Study, screenshots: Path
) -> None:
    size = {"width": 1400, "height": 1000}
    context = browser.new_context(viewport=size)
    watched = watch(context)
    watched.page.goto(address)
    names = study.user_attrs["figures"]
    for name in names:
        plot = watched.page.locator(f'[id="user-defined-plot:{name}"]')
        plot.locator(".main-svg").first.wait_for()
        assert plot.locator(".gtitle").text_content()
    watched.page.get_by_text("trial-0-adapter.zip").wait_for()
    for scheme in ("light", "dark"):
        watched.page.emulate_media(color_scheme=scheme)
        watched.page.wait_for_timeout(300)
        watched.page.screenshot(path=screenshots / f"dashboard-{scheme}.png", full_page=True)
    assert watched.errors == []
    here = address.split("/dashboard")[0]
    assert all(url.startswith(here) for url in watched.requests)
    context.close()


def test_every_note_is_shown(
    browser: Any, address: str, study: optuna.Study, screenshots: Path
) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    watched = watch(context)
    page = watched.page
    page.goto(f"{address}/note")
    page.get_by_text("The search so far").wait_for()
    shown = page.locator("body").inner_text()
    for words in ("What the user wrote.", "1 infeasible, 1 failed", lora_like.WHY_DIVERGED):
        assert words in shown
    assert "[//]" not in shown
    page.screenshot(path=screenshots / "dashboard-note.png", full_page=True)
    best = study.best_trial.number
    notes = {
        best: "The best trial so far",
        0: "The default configuration.",
        lora_like.DIVERGED: f"Infeasible: {lora_like.WHY_DIVERGED}",
        lora_like.CRASHED: "Failed: RuntimeError: device lost <b>",
    }
    for number, words in notes.items():
        page.goto(f"{address}/trials?numbers={number}")
        page.get_by_text(words).first.wait_for()
    page.goto(f"{address}/smartSelection")  # the table of trials, a column each user attribute
    page.get_by_role("columnheader").filter(has_text="infeasible").wait_for(state="attached")
    page.screenshot(path=screenshots / "dashboard-table.png")
    assert watched.errors == []
    context.close()
