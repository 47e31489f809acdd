"""What the README and the benchmarks' pages say is what the project does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import re

import pytest

from benchmarks.race import collect
from benchmarks.race import report
from benchmarks.race import tasks
from benchmarks.race.results import Results
from benchmarks.race.results import select


ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BENCHMARKS = ROOT / "docs" / "benchmarks"
RACE = (BENCHMARKS / "race.md").read_text()
TEXTS = ("choices-prompts", "choices-rag", "choices-peft")
"""How the names of tasks begin whose choices are texts."""
ESTIMATE = r"(-?[\d.]+)\s+\((-?[\d.]+)\s+to\s+(-?[\d.]+)\)"


def test_the_results_are_those_of_the_benchmark(printed: Callable[..., str]) -> None:
    rows = printed("benchmarks/demo_search.py", "--report").splitlines()
    assert len(rows) >= 5  # a heading and three samplers
    for row in rows:
        assert row in RACE


def studies(methods: tuple[str, ...], names: str) -> Results:
    return select(
        collect.read(ROOT / "benchmarks/results/race/race.parquet"),
        methods=methods,
        task_names=tasks.choose(names),
        start="plain",
    )


@pytest.fixture(scope="module")
def results() -> Results:
    return studies(("ours-numeric", "gp", "tpe", "cmaes", "random"), "reported")


@pytest.fixture(scope="module")
def real_results() -> Results:
    return studies(("ours", "gp", "tpe", "cmaes", "random"), "real-reported")


@pytest.fixture(scope="module")
def losses(results: Results) -> str:
    return report.lora(results, 30)


def test_the_ranks_are_those_of_the_race(results: Results, real_results: Results) -> None:
    summaries = re.findall(r"(\| \*\*LLMBOSampler.*?)\n\n", RACE, re.DOTALL)
    for of_methods, found in zip(summaries, (real_results, results), strict=True):
        ranks = report.average_rank(found, [10, 20, 30])
        printed = [row.replace("*", "").split(" | ")[1:] for row in of_methods.splitlines()]
        overall = [row.split(" | ")[2:] for row in ranks.splitlines() if "| all" in row]
        assert [row.rstrip(" |") for column in zip(*printed, strict=True) for row in column] == [
            cell.rstrip(" |") for row in overall for cell in row
        ]
        for row in _table(ranks).splitlines():
            assert "| real (" in row or row in RACE  # the family is all of its tasks
        assert _table(report.paired(found, [10, 20, 30])) in RACE


def test_the_losses_are_those_of_the_race(results: Results, losses: str) -> None:
    """Every estimate with an interval in the statement on LoRA stands in the race's report."""
    (statement,) = re.findall(r"\*\*On LoRA\*\*.*?\n\n", RACE, re.DOTALL)
    estimates = re.findall(ESTIMATE, statement)
    assert len(estimates) == 6
    rounded = [tuple(f"{float(n):.3f}" for n in row) for row in re.findall(ESTIMATE, losses)]
    assert set(estimates) <= set(rounded)
    assert _table(losses) in RACE
    for target, expected in (("random", (12, 10)), ("tpe", (13, 11))):
        needed = [
            float(row.split(" | ")[1].split()[0])
            for row in report.needed(results, target).splitlines()
            if row.startswith("| lora")
        ]
        assert tuple(int(n + 0.5) for n in needed) == expected
        assert f"{expected[0]} and {expected[1]}" in statement


def test_the_readmes_figures_are_those_of_the_race(
    results: Results, real_results: Results
) -> None:
    """Ranks on real runs of three samplers, and on choices by name; on how many of the other tasks
    it is better."""
    honest = " ".join(README.split("## When it helps")[1].split("## ")[0].split())
    ranks = [
        row.strip("| ").split(" | ")[2:]
        for row in report.average_rank(real_results, [10, 20, 30]).splitlines()
        if "| all" in row
    ]
    methods = real_results.methods
    of = {m: [row[i].split()[0] for row in ranks] for i, m in enumerate(methods)}
    named = [name for name in tasks.choose("choices-reported") if name.startswith(TEXTS)]
    on_choices = [*ranks_after_30("choices-reported")[:3], *ranks_after_30(",".join(named))[:2]]
    assert re.findall(r"\d\.\d+", honest) == [*of["ours"], *of["tpe"], *of["gp"], *on_choices]
    for n, row in enumerate(ranks):
        others = [float(of[m][n]) for m in methods if m != "ours"]
        assert float(of["ours"][n]) < min(others), row
    lines = report.paired(results, [30]).splitlines()
    (against_gp,) = (line for line in lines if line.startswith("| 30 | gp |"))
    n_tasks, better, worse = (
        against_gp.split(" | ")[2],
        *against_gp.rstrip(" |").split(" | ")[-1].split(" / ")[::2],
    )
    assert f"On {n_tasks} tasks of small networks" in honest
    assert f"better than `GPSampler` on {better} and worse on none" in honest and worse == "0"


def ranks_after_30(names: str) -> list[str]:
    """Average ranks of five samplers on tasks of choices by name."""
    found = studies(("ours", "ours-no-llm", "gp", "tpe", "random"), names)
    (row,) = (r for r in report.average_rank(found, [30]).splitlines() if "| all" in r)
    return [cell.split()[0] for cell in row.strip("| ").split(" | ")[2:]]


def test_the_ranks_on_choices_are_those_of_the_race() -> None:
    section = RACE.split("## Results on choices by name")[1].split("\n## ")[0]
    found = studies(("ours", "ours-no-llm", "gp", "tpe", "random"), "choices-reported")
    printed = report.average_rank(found, [20, 30]) + report.paired(found, [20, 30])
    for row in _table(printed).splitlines():
        if "choices (29)" not in row:
            assert row in section
    for row in _table(report.calibration(found)).splitlines():
        assert row in section


def _table(text: str) -> str:
    """The rows of the Markdown table in a report."""
    return "\n".join(row for row in text.splitlines() if row.startswith("|"))


def test_the_encoders_figures_are_those_of_the_benchmark(printed: Callable[..., str]) -> None:
    lines = printed("benchmarks/encoder.py", "--report")
    assert lines and lines in (BENCHMARKS / "encoder.md").read_text()


def test_links_and_make_targets_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|\$ )make ([a-z]+)", README):
        assert f"\n{target}:" in makefile, target
