"""The report: one file, complete, harmless whatever a study is called."""

from __future__ import annotations

from html.parser import HTMLParser
import importlib.util
import json
from pathlib import Path
import re

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
import pytest
from typer.testing import CliRunner

from optuna_llmbo import cli
from optuna_llmbo import LLMBOSampler
from optuna_llmbo.errors import InputError
from optuna_llmbo.figures import draw
from optuna_llmbo.insight import examine
from optuna_llmbo.report import write_report
from tests import lora_like
from tests.insight.studies import bowl
from tests.insight.studies import PLANE
from tests.insight.studies import study_of
from tests.insight.studies import study_of_trust


pytestmark = pytest.mark.usefixtures("model_not_asked")

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Tables by id, figures' JSON by id, and what tags there are."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.figures: dict[str, dict[str, object]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._table: list[list[str]] = []
        self._script: str | None = None
        self._in_cell = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "table":
            self._table = self.tables[str(found["id"])] = []
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._table[-1].append("")
            self._in_cell = True
        elif tag == "script":
            self._script = found.get("data-for") or ""

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")
        self._script = None if tag == "script" else self._script

    def handle_data(self, data: str) -> None:
        if self._script:
            self.figures[self._script] = json.loads(data)
        elif self._script is None:
            self.text += data
        if self._in_cell:
            self._table[-1][-1] += data


@pytest.mark.long
@pytest.mark.parametrize("model_not_asked", [False], indirect=True)
def test_figures_tables_and_text(tmp_path: Path) -> None:
    study = lora_like.make_study()
    page = Page(write_report(study, tmp_path / "new" / "report.html"))
    figures = draw(examine(study))
    assert list(page.figures) == [figure.name for figure in figures]
    for figure in figures:
        assert figure.title in page.text and figure.caption in page.text
    assert list(page.tables) == ["counts", "best-trials", "ranges", "all-trials", "versions"]
    heading, *rows = page.tables["all-trials"]
    assert [row[0] for row in rows] == ["0 (default)", *map(str, range(1, 15))]
    assert heading[:4] == ["trial", "outcome", "value", "seconds"]
    assert rows[lora_like.DIVERGED][1] == "infeasible"
    assert rows[lora_like.DIVERGED][-1] == lora_like.WHY_DIVERGED
    values = [float(row[2]) for row in page.tables["best-trials"][1:]]
    assert values == sorted(values)
    assert ["optuna", optuna.__version__] in page.tables["versions"]


def test_the_context_is_among_what_to_know_first(tmp_path: Path) -> None:
    study = optuna.create_study()
    assert "Context" not in Page(write_report(study, tmp_path / "report.html")).text
    study.set_user_attr("llmbo:context", {"method": "lora", "parameters": 7_000_000_000})
    text = Page(write_report(study, tmp_path / "report.html")).text
    assert "method = lora, parameters = 7e9" in text


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ((0.8, 0.9), "trusted 0.90 at trial 4, 0.75 before the first."),
        ((0.2, 0.1), "trusted 0.10 at trial 4, 0.75 before the first; overruled from trial 3 on."),
    ],
)
def test_how_far_knowledge_is_trusted(told: tuple[float, ...], words: str, tmp_path: Path) -> None:
    page = Page(write_report(study_of_trust(*told), tmp_path / "report.html"))
    assert f"Knowledge{words}" in page.text  # the term, and its text
    drawn = json.dumps(page.figures["llmbo-trust"])
    assert ("overruled from trial 3 on" in drawn) == ("overruled" in words)


def test_where_nothing_was_expected_no_trust_is_shown(tmp_path: Path) -> None:
    page = Page(write_report(study_of(PLANE, bowl, 5), tmp_path / "report.html"))
    assert "Knowledge" not in page.text and "trusted" not in page.text
    assert "llmbo-trust" not in page.figures and "llmbo-best-so-far" in page.figures


@pytest.mark.parametrize("model_not_asked", [False], indirect=True)
def test_the_choices_as_a_table(tmp_path: Path, tiny_llm: Path) -> None:
    long = "word " * 30
    space: dict[str, BaseDistribution] = {
        "flag": CategoricalDistribution([True, False, None]),
        "paint": CategoricalDistribution([EVIL, "red & blue", "dark red", long]),
        "x": FloatDistribution(0.0, 1.0),
    }
    study = study_of(space, lambda params: params["x"], 6)
    sampler = LLMBOSampler(seed=0, llm=tiny_llm)
    path = write_report(study, tmp_path / "report.html", sampler)
    page = Page(path)
    heading, flag, paint = page.tables["choices"]
    assert heading == ["parameter", "choices", "read by", "weight of meaning", "most alike"]
    n_tried = len({trial.params["flag"] for trial in study.trials})
    assert flag == ["flag", f"3 ({n_tried} tried)", "none", "", ""]
    assert paint[2].startswith(tiny_llm.name) and 0 < float(paint[3]) < 1
    found = examine(study, sampler).choices
    assert found is not None
    pairs = [pair for one in found for pair in one.alike]
    assert len(pairs) == 3 and EVIL in {text for pair in pairs for text in (pair.one, pair.other)}
    assert paint[4].count(" and ") == 3 and long not in paint[4] and "…" in paint[4]
    assert f"({pairs[0].correlation:.2f})" in paint[4]
    assert "<img" not in path.read_text() and "llmbo-choices" in page.figures
    assert "Most alike in paint: red & blue and dark red." in page.text  # escaped once


@pytest.mark.parametrize("model_not_asked", [False], indirect=True)
def test_without_choices_there_is_no_table_of_them(tmp_path: Path) -> None:
    page = Page(write_report(study_of(PLANE, bowl, 4), tmp_path / "report.html"))
    assert "choices" not in page.tables and "llmbo-choices" not in page.figures
    assert "choices" not in page.text.split("What is missing")[1]


def test_it_asks_for_nothing_and_holds_plotly_once(tmp_path: Path) -> None:
    path = write_report(lora_like.make_study(n_trials=3), tmp_path / "report.html")
    page = Page(path)
    assert not [tag for tag, _ in page.tags if tag in ("link", "img", "iframe", "object")]
    assert not [found for tag, found in page.tags if tag == "script" and "src" in found]
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None and policy.startswith("default-src 'none'")
    assert path.read_text().count("plotly.js v") == 1


def test_it_can_be_read_aloud(tmp_path: Path) -> None:
    page = Page(write_report(lora_like.make_study(n_trials=3), tmp_path / "report.html"))
    assert ("html", {"lang": "en"}) in page.tags
    assert sum(tag == "h1" for tag, _ in page.tags) == 1
    ids = {found["id"] for _, found in page.tags if "id" in found}
    for tag, found in page.tags:
        if tag == "th":
            assert found["scope"] in ("col", "row")
        for name in ("aria-labelledby", "aria-describedby"):
            assert found.get(name) is None or found[name] in ids
    described = [found for _, found in page.tags if found.get("role") == "img"]
    assert len(described) == len(page.figures) > 0
    assert all("aria-describedby" in found for found in described)


def test_a_studys_text_is_harmless(tmp_path: Path) -> None:
    study = optuna.create_study(study_name=EVIL)
    study.set_metric_names([EVIL])
    for i in range(3):
        trial = study.ask()
        trial.suggest_float(EVIL, 0, 1)
        trial.suggest_categorical("choice", [EVIL, "plain"])
        trial.set_user_attr("pruned_reason", EVIL)
        study.tell(trial, float(i))
    path = write_report(study, tmp_path / "report.html")
    assert EVIL not in path.read_text()
    page = Page(path)
    assert not [tag for tag, found in page.tags if tag == "img" or "onerror" in found]
    assert EVIL in page.tables["all-trials"][0] and EVIL in page.text
    for raw in re.findall(r'data-for="[^"]*">(.*?)</script>', path.read_text()):
        assert not set(raw) & set("<>&")


def test_an_empty_study(tmp_path: Path) -> None:
    page = Page(write_report(optuna.create_study(), tmp_path / "report.html"))
    assert "This study is empty" in page.text
    assert "no trial is complete and feasible yet" in page.text
    assert list(page.tables) == ["counts", "versions"]


def test_several_objectives(tmp_path: Path) -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    study.set_metric_names(["loss", "score"])
    study.optimize(lambda t: (t.suggest_float("x", 0, 1), t.suggest_float("y", 0, 1)), n_trials=8)
    page = Page(write_report(study, tmp_path / "report.html"))
    heading, *rows = page.tables["pareto-front"]
    assert heading[:4] == ["trial", "outcome", "loss", "score"]
    assert sorted(int(row[0]) for row in rows) == sorted(t.number for t in study.best_trials)


def test_a_study_where_all_failed(tmp_path: Path) -> None:
    study = optuna.create_study()
    study.optimize(lambda trial: 1 / 0 * trial.number, n_trials=2, catch=(ZeroDivisionError,))
    page = Page(write_report(study, tmp_path / "report.html"))
    assert ["failed", "2"] in page.tables["counts"]


def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"optuna-llmbo\[report\]"):
        write_report(optuna.create_study(), tmp_path / "report.html")


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the report"):
        write_report(optuna.create_study(), tmp_path / "file" / "report.html")


def test_the_command(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    lora_like.make_study(url, n_trials=3)
    out = tmp_path / "report.html"
    result = CliRunner().invoke(cli.app, ["report", "lora", "-o", str(out), "--storage", url])
    assert result.exit_code == 0, result.output
    assert "report.html" in result.output
    assert [row[0] for row in Page(out).tables["all-trials"][1:]] == ["0 (default)", "1", "2"]
    result = CliRunner().invoke(cli.app, ["report", "none", "--storage", url])
    assert result.exit_code == 2 and "no study 'none'" in result.output
