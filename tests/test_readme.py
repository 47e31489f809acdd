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
ESTIMATE = r"(-?[\d.]+)\s+\((-?[\d.]+)\s+to\s+(-?[\d.]+)\)"


def test_the_results_are_those_of_the_benchmark(printed: Callable[..., str]) -> None:
    rows = printed("benchmarks/demo_search.py", "--report").splitlines()
    assert len(rows) >= 5  # a heading and three samplers
    for row in rows:
        assert row in RACE


@pytest.fixture(scope="module")
def results() -> Results:
    return select(
        collect.read(ROOT / "benchmarks/results/race/race.parquet"),
        methods=("ours-numeric", "gp", "tpe", "cmaes", "random"),
        task_names=tasks.choose("reported"),
        start="plain",
    )


@pytest.fixture(scope="module")
def losses(results: Results) -> str:
    return report.lora(results, 30)


def test_the_ranks_are_those_of_the_race(results: Results) -> None:
    ranks = report.average_rank(results, [10, 20, 30])
    (of_methods,) = re.findall(r"(\| \*\*LLMBOSampler.*?)\n\n", RACE, re.DOTALL)
    printed = [row.replace("*", "").split(" | ")[1:] for row in of_methods.splitlines()]
    overall = [row.split(" | ")[2:] for row in ranks.splitlines() if "| all" in row]
    assert [row.rstrip(" |") for column in zip(*printed, strict=True) for row in column] == [
        cell.rstrip(" |") for row in overall for cell in row
    ]
    assert _table(ranks) in RACE


def test_the_losses_are_those_of_the_race(results: Results, losses: str) -> None:
    """Every estimate with an interval in the statement on LoRA stands in the race's report."""
    (statement,) = re.findall(r"\*\*On LoRA\*\*.*?\n\n", RACE, re.DOTALL)
    estimates = re.findall(ESTIMATE, statement)
    assert len(estimates) == 6
    rounded = [tuple(f"{float(n):.3f}" for n in row) for row in re.findall(ESTIMATE, losses)]
    assert set(estimates) <= set(rounded)
    assert _table(losses) in RACE
    for target, expected in (("random", (11, 6)), ("tpe", (15, 7))):
        needed = [
            float(row.split(" | ")[1].split()[0])
            for row in report.needed(results, target).splitlines()
            if row.startswith("| lora")
        ]
        assert tuple(int(n + 0.5) for n in needed) == expected
        assert f"{expected[0]} and {expected[1]}" in statement


def test_the_readmes_figures_are_those_of_the_race(results: Results, losses: str) -> None:
    """Gains over the default, TPE and GPSampler on the grid; tasks on which it is better."""
    honest = " ".join(README.split("## When it helps")[1].split("## ")[0].split())
    on_grid = {
        method: [f"{float(estimate[0]):.3f}" for estimate in re.findall(ESTIMATE, row)]
        for row in losses.splitlines()
        if row.startswith("| lora-exact |")
        for method in [row.split(" | ")[1]]
    }
    gains = (on_grid["ours-numeric"][0], on_grid["tpe"][1], on_grid["gp"][1])
    assert tuple(re.findall(r"\d\.\d+", honest)) == gains
    (row,) = (
        row for row in report.paired(results, [30]).splitlines() if row.startswith("| 30 | gp |")
    )
    n_tasks, better, worse = (
        row.split(" | ")[2],
        *row.rstrip(" |").split(" | ")[-1].split(" / ")[::2],
    )
    assert f"On {n_tasks} tasks that nothing was tuned on" in honest
    assert f"better than `GPSampler` on {better} and worse on none" in honest and worse == "0"


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
