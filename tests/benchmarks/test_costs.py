from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState
import pytest

from benchmarks import costs
from optuna_llmbo.space.search_space import SearchSpace


pytestmark = pytest.mark.usefixtures("one_thread")


def test_studies_are_as_described() -> None:
    spread = costs.study_of(costs.LORA, 40)
    near = costs.study_of(costs.LORA, 40, near=0.9)
    space = SearchSpace(costs.LORA)
    away = [
        np.abs(space.to_unit([t.params for t in study.trials]) - costs.OPTIMUM).max(axis=1)
        for study in (spread, near)
    ]
    assert (away[0] < 0.1).sum() <= 4 and (away[1] < 0.1).sum() >= 34
    busy = costs.study_of(costs.LORA, 5, running=3)
    states = [trial.state for trial in busy.trials]
    assert states.count(TrialState.RUNNING) == 3 and len(states) == 8
    assert all(set(trial.params) == set(costs.LORA) for trial in busy.trials)
    (choice,) = (d for name, d in costs.nominal(7).items() if name == "choice")
    assert len(choice.choices) == 7  # type: ignore[attr-defined]


def test_it_measures_saves_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def make(n: int) -> optuna.Study:
        return costs.study_of(costs.LORA, n)

    quick = {
        "a": costs.Scenario("what", (12,), make, repeats=2),
        "b": costs.Scenario("what", (12,), make, repeats=1, asked=2),
        "c": costs.Scenario("more", (12,), make, repeats=1, gp_up_to=11),
    }
    monkeypatch.setattr(costs, "SCENARIOS", quick)
    save = tmp_path / "costs.json"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    costs.run(["a"], None, save)
    result = costs.run(["b", "c"], None, save)
    assert result == json.loads(save.read_text())
    assert list(result["seconds"]) == ["a", "b", "c"] == list(result["made"])
    assert len(result["seconds"]["a"]["12"]["ours"]["processor"]) == 2
    assert len(result["seconds"]["b"]["12"]["GPSampler"]["wall"]) == 1
    assert list(result["seconds"]["c"]["12"]) == ["ours"]
    rows = costs.table(result).splitlines()
    assert len(rows) == 2 + 3
    cells = [cell.strip() for cell in rows[2].strip("|").split("|")]
    ours, theirs, ratio = map(float, cells[2:])
    assert ours > 0 and theirs > 0 and ratio > 0
    assert "GPSampler" in capsys.readouterr().out
