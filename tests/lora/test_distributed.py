"""Two processes on the CPU, joined by accelerate, train a trial as one does."""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path

from optuna.distributions import IntDistribution
from optuna.trial import FixedTrial
import pytest

from optuna_llmbo.lora import LoRAObjective
from tests.two_processes import train_together


@pytest.mark.slow
def test_two_processes_train_as_one(
    make_objective: Callable[..., LoRAObjective], tmp_path: Path, tiny_llm: Path
) -> None:
    """Also where memory runs out in one of them, or the time of a trial."""
    outs = [tmp_path / "well.json", tmp_path / "short-of-memory.json", tmp_path / "late.json"]
    train_together("tests.lora.together", tiny_llm, *outs, seconds=300)
    alone = make_objective(
        space={"rank": IntDistribution(1, 8), "batch_size": IntDistribution(3, 7)},
        defaults={"lora_dropout": 0.0, "learning_rate": 5e-3},
    )
    studies = [json.loads(out.read_text()) for out in outs]
    assert [len(trials) for trials in studies] == [3, 3, 3]
    for trial in [*studies[0], *studies[1]]:
        assert trial["value"] == pytest.approx(alone(FixedTrial(trial["params"])), abs=1e-5)
        assert trial["steps"] == 27 // trial["params"]["batch_size"]
        assert trial["value"] < trial["base_loss"] - 0.1
    assert all(out.with_suffix("").exists() for out in outs[:2])
    for trial in studies[2]:
        assert trial["infeasible"] and trial["steps"] == 1 and trial["value"] is None
        assert trial["pruned_reason"] == "over the time limit of a trial, 277777 h 46 min 40 s"
