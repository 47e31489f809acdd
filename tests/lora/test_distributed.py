"""Two processes on the CPU, joined by accelerate, train a trial as one does."""

from __future__ import annotations

from collections.abc import Callable
import json
import os
from pathlib import Path
import socket
import subprocess
import sys

from optuna.distributions import IntDistribution
from optuna.trial import FixedTrial
import pytest

from optuna_llmbo.lora import LoRAObjective


ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_processes_train_as_one(
    make_objective: Callable[..., LoRAObjective], tmp_path: Path, tiny_llm: Path
) -> None:
    """Also where memory runs out in one of them, or the time of a trial."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outs = [tmp_path / "well.json", tmp_path / "short-of-memory.json", tmp_path / "late.json"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    script = ["-m", "tests.lora.together", str(tiny_llm), *map(str, outs)]
    result = subprocess.run(
        [*launch, "--master-port", str(port), *script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
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
