"""Run a module in two processes that train together."""

from __future__ import annotations

import os
from pathlib import Path
import socket
import subprocess
import sys


ROOT = Path(__file__).parents[1]


def train_together(module: str, *arguments: object, seconds: float) -> None:
    """Run a module in two processes of torch.distributed, within so many seconds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*launch, "--master-port", str(port), "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert result.returncode == 0, result.stderr[-3000:]
