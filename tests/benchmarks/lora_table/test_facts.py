from __future__ import annotations

from collections.abc import Callable
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from benchmarks.lora_table import facts
from benchmarks.lora_table import plan
from benchmarks.lora_table import tables
from benchmarks.lora_table.defaults import DEFAULTS
from benchmarks.lora_table.tiers import FRACTIONS
from benchmarks.lora_table.tiers import PROXY
from benchmarks.lora_table.tiers import tier
from tests.benchmarks.lora_table.conftest import BASE_LOSS
from tests.benchmarks.lora_table.conftest import grid
from tests.benchmarks.lora_table.conftest import make_row
from tests.benchmarks.lora_table.conftest import make_table


ROOT = Path(__file__).parent.parent.parent.parent
Printed = Callable[..., str]
CARD = (ROOT / "benchmarks" / "lora_table" / "README.md").read_text()


def cells(text: str, first: str) -> list[str]:
    """The cells of the line of a Markdown table whose first cell is `first`."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def numbers(text: str, first: str) -> list[float]:
    return [float(cell.rstrip("%")) for cell in cells(text, first)]


@pytest.mark.long
@pytest.mark.parametrize("fact", facts.FACTS)
def test_the_card_shows_the_facts(fact: str, printed: Printed) -> None:
    assert f"python -m benchmarks.lora_table.facts {fact}" in CARD
    lines = printed("benchmarks/lora_table/facts.py", fact)
    assert lines and lines in CARD


@pytest.mark.parametrize("script", ["surrogate", "recheck"])
def test_the_card_shows_the_reports(script: str, printed: Printed) -> None:
    lines = printed(f"benchmarks/lora_table/{script}.py", "--report")
    assert lines and lines in CARD


def test_rechecked_rows_are_within_the_noise() -> None:
    results = json.loads((tables.RESULTS / "recheck-cpu.json").read_text())
    assert len(results) >= 10
    shipped = tables.read(tables.FOLDER / "cpu.parquet").set_index("run_id")
    for result in results:
        assert result["loss"] == shipped.loc[result["run_id"], "loss"]
        assert abs(result["loss"] - result["again_loss"]) < result["seed_noise"]


def test_shares_of_an_additive_loss() -> None:
    """Two levels with effects of 3 and 4: 9 and 16 of 25."""

    def loss(p: dict[str, Any]) -> float:
        return 3.0 * (p["rank"] == 4) + 4.0 * (p["batch_size"] == 16)

    text = facts.variance_of_grid(make_table(loss))
    assert text is not None
    assert numbers(text, "rank")[:2] == [36, 36]
    assert numbers(text, "batch_size")[:2] == [64, 64]
    assert numbers(text, "learning_rate")[:2] == [0, 0]


def test_shares_of_an_interaction() -> None:
    text = facts.variance_of_grid(
        make_table(lambda p: float((p["rank"] == 4) ^ (p["batch_size"] == 16)))
    )
    assert text is not None
    assert numbers(text, "rank")[:2] == numbers(text, "batch_size")[:2] == [0, 100]


def test_no_shares_of_an_incomplete_grid(table: pandas.DataFrame) -> None:
    assert facts.variance_of_grid(table.drop(index=0)) is None


def random_table(loss: Any, fractions: tuple[float, ...] = FRACTIONS) -> pandas.DataFrame:
    rows = [
        make_row(params, loss(params, fraction), design="random", fraction=fraction, seed=0)
        for params in plan.random_configurations(tier("cpu"))
        for fraction in fractions
    ]
    return tables.frame(rows)


@pytest.mark.long
def test_a_quantity_that_is_the_loss_predicts_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("rate * alpha / rank / batch", "dropout", "rank", "rate")
    monkeypatch.setattr(facts, "QUANTITIES", {name: facts.QUANTITIES[name] for name in asked})

    def loss(p: dict[str, Any], _: float) -> float:
        update = math.log(p["learning_rate"] * p["alpha_ratio"] / p["batch_size"])
        return 3.0 + 0.02 * (update + 6) ** 2

    text = facts.variance_of_quantities(random_table(loss, (PROXY, 1.0)))
    assert numbers(text, "rate * alpha / rank / batch")[0] > 0.99
    assert numbers(text, "dropout")[0] < 0.1
    assert numbers(text, "rank")[0] < 0.1
    assert numbers(text, "rate")[0] < 0.9


def test_noise_of_seeds() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for i, params in enumerate(plan.random_configurations(tier("cpu"))):
        level = 3.0 + 0.5 * math.sin(i)
        rows += [
            make_row(
                params,
                level + 0.1 * s + 0.05 * rng.normal(),
                design="promoted",
                fraction=f,
                seed=s,
            )
            for f in (0.1, 1.0)
            for s in (0, 1, 2)
        ]
    table = tables.frame(rows)
    total = math.hypot(0.1, 0.05)  # the seeds shift all configurations by 0, 0.1 and 0.2
    assert facts.seed_noise(table, 1.0) == pytest.approx(total, rel=0.1)
    (line,) = [x for x in facts.seeds(table).splitlines() if x.startswith("| 10% | promoted")]
    _, _, n, noise, own, between, agreement = [cell.strip() for cell in line.strip("|").split("|")]
    assert int(n) == 200
    assert float(noise) == pytest.approx(total, rel=0.1)
    assert float(own) == pytest.approx(0.05, rel=0.1)
    assert float(between) == pytest.approx(0.5 / math.sqrt(2), rel=0.1)
    assert float(agreement) > 0.95


def test_the_best_of_a_part_may_lie_elsewhere() -> None:
    """Small ranks and high rates win on a hundredth, the opposite on all data."""

    def loss(p: dict[str, Any], fraction: float) -> float:
        drive = math.log(p["learning_rate"]) - math.log(p["rank"])
        return 3.0 + (-drive if fraction == 0.01 else drive)

    rows = random_table(loss, (0.01, 1.0))
    text = facts.shift(rows)
    part, full = (
        [float(cell.split(" ")[0]) for cell in cells(text, name)] for name in ("1%", "100%")
    )
    assert part[0] < full[0] / 4  # rank
    assert part[3] > 20 * full[3]  # rate
    best = rows[rows["fraction"] == 1.0].nsmallest(facts.N_BEST, "loss")
    ranks = np.log(best["rank"])
    assert full[0] == pytest.approx(math.exp(ranks.mean()), rel=0.05)
    error = math.exp(ranks.std() / math.sqrt(facts.N_BEST))
    assert f"(x {error:.2f})" in cells(text, "100%")[0]


def test_fidelity_of_a_faithful_and_of_a_misleading_part() -> None:
    def loss(p: dict[str, Any], fraction: float) -> float:
        full = 3.0 + 0.1 * abs(math.log(p["learning_rate"] / 1e-3))
        return {0.01: 8.0 - full, 0.05: full + 1.0, 0.1: full, 0.3: full, 1.0: full}[fraction]

    text = facts.fidelity(random_table(loss))
    assert numbers_of_fidelity(text, "1%")[:2] == [-1.0, -1.0]
    assert numbers_of_fidelity(text, "5%") == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert numbers_of_fidelity(text, "1%")[3] > 0.4


def numbers_of_fidelity(text: str, first: str) -> list[float]:
    return [float(cell.split()[0]) for cell in cells(text, first)[:7]]


def test_live_is_more_than_a_tenth_of_the_gain() -> None:
    losses = pandas.Series([3.0, 4.79, 4.81, 5.0, 7.0, math.nan])
    assert facts.live(losses, BASE_LOSS).tolist() == [True, True, False, False, False, False]


def test_defaults_against_the_best_with_its_luck_taken_off() -> None:
    lucky, other = grid()[:2]
    rows = []
    for fraction in (0.1, 1.0):
        for params, losses in (
            (DEFAULTS["peft"], (4.0, 4.0, 4.0)),
            (lucky, (2.0, 3.0, 3.0)),
            (other, (3.0, 3.0, 3.0)),
        ):
            rows += [
                make_row(params, loss, fraction=fraction, seed=seed)
                for seed, loss in enumerate(losses)
            ]
    text = facts.defaults(tables.frame(rows))
    assert cells(text, "peft")[5:8] == ["4.000", "50%", "33.3%"]
    assert cells(text, "best at 100%")[8:] == ["3.000", "100%", "0.0%"]
    assert cells(text, "Axolotl")[5:] == ["-"] * 6
