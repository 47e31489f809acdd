"""The replay compares decisions, and notices one that changed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import replay


RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "replay"


def test_the_new_layout_changed_no_decision(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.compare(RESULTS / "before.json", RESULTS / "after.json") == 0
    printed = capsys.readouterr().out
    assert all(f"{name}: " in printed for name in replay.STUDIES)


@pytest.mark.parametrize("change", ["value", "missing trial", "missing study"])
def test_a_change_is_noticed(change: str, tmp_path: Path) -> None:
    found: dict[str, Any] = json.loads((RESULTS / "before.json").read_text())
    other = copy.deepcopy(found)
    if change == "value":
        other["studies"]["lora"][7]["params"]["rank"] += 1
    elif change == "missing trial":
        other["studies"]["lora"].pop()
    else:
        del other["studies"]["lora"]
    path = tmp_path / "other.json"
    path.write_text(json.dumps(other))
    assert replay.compare(RESULTS / "before.json", path) == 1


@pytest.mark.long
def test_a_study_is_replayed(tmp_path: Path) -> None:
    """The failing study, which needs no language model, decides the same twice."""
    for name in ("one.json", "two.json"):
        replay.run(["failing"], tmp_path / name)
    assert replay.compare(tmp_path / "one.json", tmp_path / "two.json") == 0
