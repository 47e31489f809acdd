"""The report of made-up parallel studies, and their table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas
import pytest

from benchmarks.parallel import report
from benchmarks.parallel import results
from benchmarks.parallel import run
from benchmarks.parallel.study import make_sampler
from benchmarks.parallel.study import Plan
from benchmarks.race.scales import Scale
from optuna_llmbo.errors import InputError


SCALES = {"bbob-sphere-2d": Scale(best=0.0, middle=10.0, default=5.0)}


def row(method: str, workers: int, seed: int, values: list[float], **changes: Any) -> Any:
    """One study whose trials end at equal distances, each worker needing a second for one."""
    study = {"task": "bbob-sphere-2d", "method": method, "workers": workers, "seed": seed}
    study |= {"budget": len(values), "training": 0.0, "values": values, "duplicates": 0}
    study |= {"ends": [(i + 1) / workers for i in range(len(values))], "error": None}
    study |= {"suggestion_seconds": [0.25] * len(values), "commit": "abc", "cores": 2}
    study |= {"versions": '{"optuna": "5.0.0"}', "python": "3.11", "cpu": "Z80"}
    return study | {"postgresql": "15", "date": "2026-01-01"} | changes


def make_table() -> pandas.DataFrame:
    """ "ours" with four workers is worse by 0.1 after two trials, and not after four."""
    rows = []
    for seed in range(5):
        rows.append(row("ours", 1, seed, [6.0, 3.0, 2.0, 1.0 + seed]))
        rows.append(row("ours", 4, seed, [6.0, 4.0, 2.0, 1.0 + seed], duplicates=1))
        rows.append(row("tpe", 1, seed, [5.0, 5.0, 5.0, 5.0]))
    return pandas.DataFrame(rows)


def cells(text: str) -> list[list[str]]:
    """The rows of the only table in a text."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[part.strip() for part in line.strip("|").split("|")] for line in lines[2:]]


def test_speed() -> None:
    ours_1, ours_4, tpe = cells(report.speed(make_table()))
    assert ours_1 == ["ours", "1", "60", "1.00", "0.250", "0 of 20"]
    assert ours_4 == ["ours", "4", "240", "4.00", "0.250", "5 of 20"]
    assert tpe[:4] == ["tpe", "1", "60", "1.00"]


def test_regret_counts_the_trials_that_have_ended() -> None:
    regrets = report.regret(make_table(), [2, 4, 5], SCALES)
    assert set(regrets["trials"]) == {2, 4}  # none has five
    two, four, *_ = cells(report.by_workers(regrets))
    assert two[:3] == ["bbob-sphere-2d", "ours", "2"]
    assert two[3].startswith("0.3 ") and two[4].startswith("0.4 ")
    assert four[3].startswith("0.2 ")  # the median seed


def test_loss_to_one_worker_is_paired_by_seed() -> None:
    regrets = report.regret(make_table(), [2, 4], SCALES)
    two, four, *others = cells(report.against_one(regrets))
    assert two == ["ours", "2", "+0.1 (+0.1 to +0.1)"]
    assert four == ["ours", "4", "+0 (+0 to +0)"]
    assert [other[-1] for other in others] == ["-", "-"]


def test_failed_studies_are_listed_and_count_for_nothing() -> None:
    failed = row("tpe", 4, 0, [], error="Traceback\nBrokenProcessPool: died", duplicates=None)
    table = pandas.concat([make_table(), pandas.DataFrame([failed])])
    text = report.report(table, [2], SCALES)
    assert (
        "16 studies on 2 cores, 1 failed.\n- bbob-sphere-2d tpe, 4 workers, seed 0: Broken" in text
    )
    assert "| tpe | 4 |" not in text


def test_table_keeps_the_last_run_of_a_study(tmp_path: Path) -> None:
    path = tmp_path / "new" / "parallel.parquet"
    results.add(path, row("ours", 1, 0, [], error="Traceback", duplicates=None))
    results.add(path, row("ours", 2, 0, [1.0, 2.0]))
    results.add(path, row("ours", 1, 0, [3.0, 4.0]))
    table = results.read(path)
    assert [list(values) for values in table["values"]] == [[1.0, 2.0], [3.0, 4.0]]
    assert table["error"].isna().all()
    with pytest.raises(InputError, match="benchmarks.parallel.run"):
        results.read(tmp_path / "other.parquet")


def test_only_what_is_missing_is_run() -> None:
    plans = run.plan(["tpe"], ["lora-10"], workers=[1, 2, 4], seeds=[0], budget=2, training=0.0)
    done = row("tpe", 1, 0, [1.0, 2.0], task="lora-10")
    failed = row("tpe", 2, 0, [], task="lora-10", error="Traceback", budget=2)
    slower = row("tpe", 4, 0, [1.0, 2.0], task="lora-10", training=2.0)
    left = run.missing(plans, [done, failed, slower])
    assert [plan.workers for plan in left] == [2, 4]
    with pytest.raises(InputError, match="unknown method 'best'"):
        run.plan(["best"], ["lora-10"], workers=[1], seeds=[0], budget=2, training=0.0)


def test_only_our_workers_have_one_seed() -> None:
    def seed_of(method: str, worker: int) -> Any:
        plan = Plan("bbob-sphere-2d", method, workers=2, seed=3, budget=2, training=0.0)
        sampler = make_sampler(plan, worker)
        if method == "ours-numeric":
            return sampler._engine.options.seed  # type: ignore[attr-defined]
        return sampler._rng.rng.randint(2**31)  # type: ignore[attr-defined]

    assert seed_of("ours-numeric", 0) == seed_of("ours-numeric", 1) == 3
    assert seed_of("tpe", 0) != seed_of("tpe", 1)
