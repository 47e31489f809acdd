"""The figures: which there are, how large, what they show, what their captions say."""

from __future__ import annotations

from dataclasses import replace
import json
import math
from pathlib import Path
import re
import sys

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
import pytest

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.errors import InputError
from optuna_llmbo.figures import draw
from optuna_llmbo.figures import Figure
from optuna_llmbo.figures.figure import thinned
from optuna_llmbo.figures.figure import value_range
from optuna_llmbo.insight import examine
from optuna_llmbo.insight import Insight
from optuna_llmbo.lora.proxy_agreement import Agreement
from optuna_llmbo.lora.proxy_agreement import ProxyCheck
from tests.insight.studies import add
from tests.insight.studies import bowl
from tests.insight.studies import LORA
from tests.insight.studies import loss
from tests.insight.studies import PLANE
from tests.insight.studies import study_of
from tests.insight.studies import study_of_trust


NAMES = [f"llmbo-{name}" for name in ("best-so-far", "next", "slices", "choices", "map")]
MORE_NAMES = [f"llmbo-{name}" for name in ("calibration", "importance", "trust", "proxy")]
ALL_NAMES = [*NAMES, *MORE_NAMES]
MOST_BYTES = 60_000
WIDE: dict[str, BaseDistribution] = {
    **{f"a_rather_long_parameter_name_{i}": FloatDistribution(0.0, 1.0) for i in range(10)},
    **{f"choice_{i}": CategoricalDistribution([f"value {j}" for j in range(5)]) for i in range(2)},
}
SAID = {"llmbo:mean": 1.0, "llmbo:deviation": 0.25, "llmbo:path": "model", "llmbo:trust": 0.2}


def check(n: int = 12) -> ProxyCheck:
    full = np.append(np.linspace(1.0, 2.0, n - 1), math.inf)
    agreements = tuple(
        Agreement(fraction, 10, 0.5, live, 0.5, live, (0.0,) * n, 1.0, 0.5)
        for fraction, live in ((0.01, math.nan), (0.1, 0.84))
    )
    losses = np.array([full[::-1], full + 0.1, full])
    return ProxyCheck(({"rank": 8},) * n, losses, n - 1, agreements, 3.0)


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    """With trials of every kind."""
    study = study_of(LORA, loss, 12)
    here = dict(study.trials[0].params)
    add(study, here, LORA, loss(here), user_attrs={**SAID, "is_default": True})
    add(study, here, LORA, 1e6, user_attrs=SAID)
    add(study, here, LORA, math.inf)
    add(study, here, LORA, None, TrialState.FAIL)
    add(study, here, LORA, None, TrialState.PRUNED, intermediate_values={1: 2.0})
    add(study, here, LORA, 0.5, system_attrs={"constraints": (1.0,)})
    return study


@pytest.fixture(scope="module")
def insight(study: optuna.Study) -> Insight:
    return replace(examine(study, LLMBOSampler(seed=0)), proxy=check())


@pytest.fixture(scope="module")
def figures(insight: Insight) -> dict[str, Figure]:
    return {figure.name: figure for figure in draw(insight)}


def traces(figure: Figure) -> dict[str, dict]:
    """By name, as the browser gets them."""
    return {trace.get("name"): trace for trace in json.loads(figure.plot.to_json())["data"]}


def test_all_of_them_in_order(figures: dict[str, Figure]) -> None:
    assert list(figures) == ALL_NAMES
    assert all(re.fullmatch(r"[A-Za-z0-9\-_:.]+", name) for name in figures)


def test_only_those_with_data() -> None:
    empty = optuna.create_study()
    assert draw(examine(empty)) == []
    names = [figure.name for figure in draw(examine(study_of(PLANE, bowl, 2)))]
    assert names == ["llmbo-best-so-far"]
    trust = examine(study_of_trust(0.5)).trust
    several = Insight("study", None, (), proxy=check(), trust=trust)
    assert [figure.name for figure in draw(several)] == ["llmbo-trust", "llmbo-proxy"]


def test_what_browsers_get(figures: dict[str, Figure]) -> None:
    """Plain lists, which older versions of plotly.js read too; no ground and no font colour."""
    for figure in figures.values():
        for plot in (figure.plot, figure.alone()):
            text = plot.to_json()
            assert "bdata" not in text and "NaN" not in text and "Infinity" not in text
            layout = json.loads(text)["layout"]
            assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"
            assert "color" not in layout["font"] and len(json.dumps(layout["template"])) < 100
            assert "#fff" not in text.lower() and "white" not in text


def test_every_axis_has_a_title(figures: dict[str, Figure]) -> None:
    for figure in figures.values():
        layout = json.loads(figure.plot.to_json())["layout"]
        axes = {name: axis for name, axis in layout.items() if re.match(r"[xy]axis", name)}
        if figure.name == "llmbo-slices":  # rows share the title of their values
            axes = {name: axis for name, axis in axes.items() if name[0] == "x"}
        if figure.name == "llmbo-next":  # both rows have the same candidates
            axes.pop("xaxis")
        assert axes
        for name, axis in axes.items():
            assert not axis.get("visible", True) or axis["title"]["text"], (figure.name, name)


def test_captions_stand_alone(figures: dict[str, Figure]) -> None:
    for figure in figures.values():
        assert "Bad sign:" in figure.caption and len(figure.caption) <= 400
        plot = figure.alone()
        shown = " ".join(note.text or "" for note in plot.layout.annotations)
        plain = re.sub("<br>", " ", shown)
        assert figure.caption in plain and plot.layout.title.text == figure.title
        for word in figure.finding.split():
            assert word in re.sub("</?b>", "", plain)
        assert figure.plot.layout.title.text is None
        assert figure.caption not in figure.plot.to_json()


def test_docs_say_the_same(figures: dict[str, Figure]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "figures.md").read_text()
    plain = " ".join(line.removeprefix("> ") for line in text.splitlines())
    for figure in figures.values():
        assert f"## {figure.title} (`{figure.name}`)" in text
        assert figure.caption in plain, figure.name


@pytest.mark.long
def test_large_studies_have_small_figures() -> None:
    """Each below 60 kB, with a hundred points a panel: the dashboard sends them at every poll."""
    rng = np.random.default_rng(0)
    study = study_of(WIDE, lambda _: 0.0, 0)
    for i in range(400):
        params = {
            name: d.choices[i % 5] if isinstance(d, CategoricalDistribution) else rng.uniform()
            for name, d in WIDE.items()
        }
        value = float(sum(v for v in params.values() if isinstance(v, float)))
        add(study, params, WIDE, value - i / 50, user_attrs=SAID)
    insight = replace(examine(study, LLMBOSampler(seed=0)), proxy=check(200))
    figures = draw(insight)
    assert [figure.name for figure in figures] == ALL_NAMES
    for figure in figures:
        text = figure.alone().to_json()
        assert len(text.encode()) < MOST_BYTES, (figure.name, len(text))
        points = sum(len(trace.get("y") or ()) for trace in json.loads(text)["data"])
        assert points < 1500, (figure.name, points)


def test_best_so_far(figures: dict[str, Figure], study: optuna.Study) -> None:
    drawn = traces(figures["llmbo-best-so-far"])
    values = [t.value for t in study.trials[:13]]
    line = drawn["best so far"]
    assert line["y"][-1] == pytest.approx(min(v for v in values if v is not None), rel=1e-4)
    assert line["x"][-1] == 17 and line["line"]["shape"] == "hv"
    assert drawn["default"]["y"] == pytest.approx([values[0]] * 2, rel=1e-4)
    assert {"pruned (1)", "infeasible (1)", "failed (1)"} <= set(drawn)
    low, high = figures["llmbo-best-so-far"].plot.layout.yaxis.range
    assert low < min(line["y"]) and high < 1e6  # a run that went astray is cut off
    assert "trial 12: a gain" not in figures["llmbo-best-so-far"].finding


def test_calibration(figures: dict[str, Figure], study: optuna.Study) -> None:
    drawn = traces(figures["llmbo-calibration"])
    outside = drawn["outside"]
    assert outside["y"][-1] == 1e6 and outside["x"][-1] == 1.0
    assert outside["error_x"]["array"][-1] == 0.25
    assert figures["llmbo-calibration"].finding == (
        "95% interval: 1 of 2 trials (50%) [50% to 100%], 0 better and 1 worse than it. "
        "68% interval: 1 of 2 trials (50%) [0% to 100%], 0 better and 1 worse than it."
    )


def test_better_than_expected_is_higher_where_the_study_maximizes() -> None:
    study = study_of(PLANE, bowl, 2, "maximize")
    for value in (1.0, 9.0, 9.0, -9.0):
        add(study, {"x": 0.1, "y": 0.2}, PLANE, value, user_attrs=SAID)
    (figure,) = (one for one in draw(examine(study)) if one.name == "llmbo-calibration")
    assert "1 of 4 trials (25%)" in figure.finding
    assert "2 better and 1 worse" in figure.finding


def test_slices(figures: dict[str, Figure], insight: Insight) -> None:
    plot = json.loads(figures["llmbo-slices"].plot.to_json())
    assert insight.slices is not None
    means = [trace for trace in plot["data"] if trace["name"] == "expected"]
    assert len(means) == len(LORA)
    for trace, one in zip(means, insight.slices.slices, strict=True):
        assert trace["y"] == pytest.approx(one.mean, rel=1e-3)
    kinds = [plot["layout"][f"xaxis{i or ''}"]["type"] for i in ("", 3, 4, 5)]
    assert kinds == ["log", "log", "log", "category"]
    held = [shape["x0"] for shape in plot["layout"]["shapes"]]
    assert held[-1] == ["linear", "cosine", "constant"].index(insight.slices.slices[-1].held)


def test_choices(figures: dict[str, Figure], insight: Insight) -> None:
    assert insight.choices is not None
    (found,) = insight.choices
    drawn = traces(figures["llmbo-choices"])
    held = next(choice for choice in found.choices if choice.is_held)
    star = drawn["recommended"]
    assert star["text"] == [held.text] and star["marker"]["symbol"] == "star"
    assert star["marker"]["color"] == pytest.approx([held.mean], rel=1e-3)
    assert star["customdata"] == [[held.text, held.n_trials]]
    tried = [c.text for c in found.choices if c.n_trials and not c.is_held]
    assert drawn["tried"]["text"] == tried and drawn["tried"]["marker"]["line"]["width"] > 0
    layout = figures["llmbo-choices"].plot.layout
    assert layout.coloraxis.reversescale is True  # lower is better
    assert layout.xaxis.title.text == "scheduler<br>not read"
    assert figures["llmbo-choices"].finding == "Not read: scheduler."


def test_choices_that_are_read(tiny_llm: Path) -> None:
    words = ["red <b>paint</b> & oil", "dark red", *(f"colour {i}" for i in range(298))]
    paints = {**PLANE, "paint": CategoricalDistribution(words)}
    study = study_of(paints, bowl, 8)
    add(study, {"x": 0.3, "y": 0.0, "paint": words[0]}, paints, -1.0)
    insight = examine(study, LLMBOSampler(seed=0, llm=tiny_llm))
    (figure,) = (one for one in draw(insight) if one.name == "llmbo-choices")
    drawn = traces(figure)
    assert sum(len(trace["x"]) for trace in drawn.values()) == 200
    assert all(trace["mode"] == "markers" for trace in drawn.values())  # too many for names
    assert drawn["recommended"]["customdata"][0] == [
        "red &lt;b&gt;paint&lt;/b&gt; &amp; oil",
        1,
    ]
    assert not re.search(r"(<|u003c)b(>|\\u003e)", figure.plot.to_json())
    assert insight.choices is not None and insight.choices[0].weight is not None
    weight = f"{insight.choices[0].weight:.2f}"
    assert figure.plot.layout.xaxis.title.text == f"paint<br>weight of meaning {weight}"
    assert figure.finding.startswith(f"Weight of meaning: paint {weight}, read by {tiny_llm.name}")
    assert figure.finding.endswith(" 100 more choices are not drawn.")
    assert "Most alike in paint: " in figure.finding


def test_many_parameters_of_choices() -> None:
    names = [f"p{i:02}" for i in range(14)]
    space: dict[str, BaseDistribution] = {
        name: CategoricalDistribution([f"value {i} of {name}" for i in range(30)])
        for name in names
    }
    study = study_of(space, lambda params: float(len(params["p00"])), 6)
    (figure,) = (
        one
        for one in draw(examine(study, LLMBOSampler(seed=0, llm=None)))
        if one.name == "llmbo-choices"
    )
    layout = json.loads(figure.plot.to_json())["layout"]
    assert sum(key.startswith("xaxis") for key in layout) == 12
    points = [len(trace["x"]) for trace in json.loads(figure.plot.to_json())["data"]]
    assert sum(points) == 12 * 16
    assert figure.small is not None
    small = json.loads(figure.small.to_json())["layout"]
    assert sum(key.startswith("xaxis") for key in small) == 6
    assert figure.finding == (
        "Not read: p00, p01, p02, and 11 more. 168 more choices are not drawn. "
        "2 more parameters are not drawn."
    )


def test_map(figures: dict[str, Figure], insight: Insight) -> None:
    drawn = traces(figures["llmbo-map"])
    assert insight.map is not None and insight.next is not None
    assert len(drawn["next"]["x"]) == 1 + len(insight.next.runners_up)
    assert drawn["best so far"]["customdata"][0][0] == f"{insight.map.best}, complete"
    assert len(drawn["untried"]["x"]) == 256
    assert figures["llmbo-map"].plot.layout.coloraxis.reversescale is True  # lower is better


def test_next(figures: dict[str, Figure], insight: Insight) -> None:
    drawn = traces(figures["llmbo-next"])
    assert insight.next is not None
    assert drawn["expected, 95% interval"]["y"][0] == pytest.approx(
        insight.next.chosen.expected.mean, rel=1e-3
    )
    assert sum(drawn["improvement"]["y"]) == pytest.approx(0.0, abs=0.05)
    assert "cost" not in drawn  # the sampler does not weigh it
    assert insight.next.text in figures["llmbo-next"].finding


def test_trust() -> None:
    (figure,) = (
        one for one in draw(examine(study_of_trust(0.6, 0.2, 0.1))) if "trust" in one.name
    )
    drawn = traces(figure)
    assert (drawn["trust"]["x"], drawn["trust"]["y"]) == ([3, 4, 5], [0.6, 0.2, 0.1])
    assert drawn["before any trial"]["y"] == [0.75] * 2
    assert drawn["overruled below 0.25"]["y"] == [0.25] * 2
    assert drawn["overruled from trial 4 on"]["x"] == [4, 4]
    right = examine(study_of_trust(0.6, 0.9))
    (figure,) = (one for one in draw(right) if "trust" in one.name)
    assert list(traces(figure)) == ["trust", "before any trial", "overruled below 0.25"]
    assert figure.finding == "Trusted 0.90 at trial 4, 0.75 before the first."


def test_proxy(figures: dict[str, Figure]) -> None:
    drawn = traces(figures["llmbo-proxy"])
    assert {"0.01: rho unknown, r unknown", "0.1: rho 0.84, r 0.84"} <= set(drawn)
    assert len(drawn["0.1: rho 0.84, r 0.84"]["x"]) == 11  # without the one that diverged
    assert "0.1 of the data" in figures["llmbo-proxy"].finding


def test_names_are_no_markup() -> None:
    distributions: dict[str, BaseDistribution] = {
        "<b>x</b>": FloatDistribution(0, 1),
        "<b>x</b> too": CategoricalDistribution(["<script>alert(1)</script>", "<b>x</b> & y"]),
        "y": FloatDistribution(0, 1),
    }
    study = study_of(distributions, lambda params: params["y"], 6)
    study.set_metric_names(["<script>"])
    figures = {figure.name: figure for figure in draw(examine(study))}
    assert "<b>x</b>" in figures["llmbo-slices"].finding  # plain text; escaped where it is drawn
    assert "Not read: <b>x</b> too." in figures["llmbo-choices"].finding
    for figure in figures.values():
        text = figure.alone().to_json()
        for tag in ("<script>", "<b>x"):
            assert tag not in text and json.dumps(tag)[1:-1].replace("<", r"\u003c") not in text


def test_without_plotly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(InputError, match=r"optuna-llmbo\[report\]"):
        draw(Insight("study", None, ()))


def test_ranges() -> None:
    values = [*np.linspace(0, 1, 100), 1e9, math.inf, None]
    low, high = value_range(values, [-1.0, None])
    assert -1.2 < low < -1.0 and 0.9 < high < 1.2
    assert value_range([], [3.0]) == [3.0 - 0.24, 3.24] and value_range([0.0], [0.0]) == [-1, 1]


def test_thinning_keeps_the_last() -> None:
    assert thinned(range(5), 9) == [0, 1, 2, 3, 4]
    few = thinned(range(1000), 10)
    assert len(few) == 10 and few[-1] == 999 and few == sorted(set(few))
