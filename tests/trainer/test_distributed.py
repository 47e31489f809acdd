"""Two processes on the CPU, joined by torchrun, train and end a trial together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.two_processes import train_together


@pytest.mark.slow
def test_all_processes_stop_together(tmp_path: Path, chat_llm: Path) -> None:
    out = tmp_path / "study.json"
    train_together("tests.trainer.together", chat_llm, out, seconds=400)
    whole, pruned, refused = json.loads(out.read_text())
    assert whole["state"] == "COMPLETE" and whole["reports"] == [50, 100] and whole["steps"] == 4
    assert pruned["state"] == "PRUNED" and pruned["reports"] == [50] and pruned["steps"] == 2
    assert "2 processes train together" in refused["error"]
    assert json.loads(Path(f"{out}.0").read_text()) == [4, 2, 0]
    assert json.loads(Path(f"{out}.1").read_text()) == [4, 2, "pruned", 0]
