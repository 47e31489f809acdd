"""Two processes on the CPU, joined by torchrun, train and end a trial together."""

from __future__ import annotations

import json
import os
from pathlib import Path
import socket
import subprocess
import sys

import pytest


ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_all_processes_stop_together(tmp_path: Path, chat_llm: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / "study.json"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    script = ["-m", "tests.trainer.together", str(chat_llm), str(out)]
    result = subprocess.run(
        [*launch, "--master-port", str(port), *script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    whole, pruned, refused = json.loads(out.read_text())
    assert whole["state"] == "COMPLETE" and whole["reports"] == [50, 100] and whole["steps"] == 4
    assert pruned["state"] == "PRUNED" and pruned["reports"] == [50] and pruned["steps"] == 2
    assert "2 processes train together" in refused["error"]
    assert json.loads(Path(f"{out}.0").read_text()) == [4, 2, 0]
    assert json.loads(Path(f"{out}.1").read_text()) == [4, 2, "pruned", 0]
