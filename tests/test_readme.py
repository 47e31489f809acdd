"""What the README says is what the project does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import re

from benchmarks.race import collect
from benchmarks.race import report
from benchmarks.race import tasks
from benchmarks.race.results import select


ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_results_are_those_of_the_benchmark(printed: Callable[..., str]) -> None:
    rows = printed("benchmarks/demo_search.py", "--report").splitlines()
    assert len(rows) >= 5  # a heading and three samplers
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    for row in rows:
        assert row in text


def test_the_ranks_and_the_losses_are_those_of_the_race() -> None:
    """Every estimate with an interval that the README prints stands in the race's report."""
    methods = ("ours-numeric", "gp", "tpe", "cmaes", "random")
    results = select(
        collect.read(ROOT / "benchmarks/results/race/race.parquet"),
        methods=methods,
        task_names=tasks.choose("reported"),
        start="plain",
    )
    ranks = report.average_rank(results, [10, 20, 30])
    (of_methods,) = re.findall(r"(\| \*\*LLMBOSampler.*?)\n\n", README, re.DOTALL)
    printed = [row.replace("*", "").split(" | ")[1:] for row in of_methods.splitlines()]
    overall = [row.split(" | ")[2:] for row in ranks.splitlines() if "| all" in row]
    assert [row.rstrip(" |") for column in zip(*printed, strict=True) for row in column] == [
        cell.rstrip(" |") for row in overall for cell in row
    ]
    losses = report.lora(results, 30)
    (statement,) = re.findall(r"\*\*On LoRA\*\*.*?\n\n", README, re.DOTALL)
    estimates = re.findall(r"(-?[\d.]+)\s+\((-?[\d.]+)\s+to\s+(-?[\d.]+)\)", statement)
    assert len(estimates) == 6
    in_report = re.findall(r"(-?[\d.]+) \((-?[\d.]+) to (-?[\d.]+)\)", losses)
    rounded = [tuple(f"{float(number):.3f}" for number in row) for row in in_report]
    assert set(estimates) <= set(rounded)
    for target, expected in (("random", (11, 6)), ("tpe", (15, 7))):
        needed = [
            float(row.split(" | ")[1].split()[0])
            for row in report.needed(results, target).splitlines()
            if row.startswith("| lora")
        ]
        assert tuple(int(n + 0.5) for n in needed) == expected
        assert f"{expected[0]} and {expected[1]}" in statement


def test_the_encoders_figures_are_those_of_the_benchmark(printed: Callable[..., str]) -> None:
    lines = printed("benchmarks/encoder.py", "--report")
    assert lines and lines in (ROOT / "docs" / "benchmarks.md").read_text()


def test_links_and_make_targets_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|\$ )make ([a-z]+)", README):
        assert f"\n{target}:" in makefile, target
