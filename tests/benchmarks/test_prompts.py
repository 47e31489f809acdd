"""The benchmark of reading prompts, and its tables in the documentation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import prompts as benchmark
from examples import prompts


DOCS = Path(__file__).parents[2] / "docs"


def test_the_tables_are_in_the_documentation() -> None:
    record = json.loads(benchmark.RESULTS.read_text())
    assert benchmark.report(record) in (DOCS / "benchmarks" / "prompts.md").read_text()


def test_what_the_page_says_of_the_scores() -> None:
    page = (DOCS / "benchmarks" / "prompts.md").read_text()
    scores = json.loads(benchmark.RESULTS.read_text())["scores"]
    searched, held_out = (
        np.array([score[part][0] for score in scores]) for part in ("searched", "held_out")
    )
    assert f"at {np.corrcoef(searched, held_out)[0, 1]:.2f} over" in page
    middle = (len(scores) - 1) // 2 + 1
    assert (searched < searched[middle]).sum() == 4  # "ranks fifth"


def test_the_kept_scores_are_those_of_the_example() -> None:
    record = json.loads(benchmark.RESULTS.read_text())
    assert [score["prompt"] for score in record["scores"]] == prompts.templates()
    for studies in record["studies"].values():
        assert list(studies) == list(benchmark.SAMPLERS)
        for chosen in studies.values():
            assert len(chosen) == benchmark.N_SEEDS
            assert all(len(study) == benchmark.N_TRIALS for study in chosen)


@pytest.mark.parametrize("kind", [benchmark.SHUFFLED, benchmark.LISTED])
def test_a_study(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "N_TRIALS", 9)
    losses = {f"prompt {i}": float(i) for i in range(20)}
    order = benchmark.order_of(kind, 20, seed=3)
    assert sorted(order) == list(range(20))
    chosen = benchmark.run(losses, order, benchmark.SAMPLERS[benchmark.UNREAD](0))
    assert len(set(chosen)) == 9 and set(chosen) <= set(range(20))  # none is tried twice


def test_the_report() -> None:
    scores = [{"searched": [loss, 0.5], "held_out": [2 * loss, 0.5]} for loss in (0.4, 0.3, 0.5)]
    first, better = [0] * benchmark.N_TRIALS, [0] * 9 + [1] * (benchmark.N_TRIALS - 9)
    studies = {benchmark.READ: [better] * 3, benchmark.UNREAD: [first] * 3}
    _, table = benchmark.report({"scores": scores, "studies": {"shuffled": studies}}).split("\n\n")
    _, _, read, unread, gain = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()
    )
    assert read[1:] == ["100.0", "0.0", "0.0", "0.0", "0.0", "0.600"]
    assert unread[1:] == ["100.0"] * 5 + ["0.800"]
    assert gain[1:3] == ["0.0 (0.0 to 0.0)", "100.0 (100.0 to 100.0)"]
