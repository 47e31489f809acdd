"""What pruning saves, on made-up studies and on one real one."""

from __future__ import annotations

from optuna.trial import TrialState
import pytest

from benchmarks import pruning
from benchmarks.lora_table import tables
from benchmarks.lora_table.objective import TableObjective


def test_a_study_counts_what_was_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "N_TRIALS", 12)
    objective = TableObjective(tables.read(pruning.TABLE))
    whole, part = (pruning.run(objective, name, seed=0) for name in ("none", "median"))
    assert whole["best"] >= objective.best_loss
    assert part["pruned"] > 0 and part["seconds"] > 0


def test_shares() -> None:
    assert pruning.share_made(TrialState.COMPLETE, 100) == 1
    assert pruning.share_made(TrialState.PRUNED, 25) == 0.25
    assert pruning.share_made(TrialState.PRUNED, None) == 1  # diverged before its first report


def test_the_table() -> None:
    studies = [
        {"pruner": name, "seed": seed, "best": 4.0 + worse, "seconds": cost, "pruned": n}
        for name, cost, worse, n in (
            ("none", 100.0, 0.0, 0),
            ("median", 60.0, 0.01, 10),
            ("hyperband", 50.0, 0.0, 15),
        )
        for seed in range(3)
    ]
    rows = pruning.table({"studies": studies}).splitlines()
    assert rows[3].startswith("| median | 10 of 30 | 60 | 0.60 (0.60 to 0.60) | 4.0100 | +0.0100")
