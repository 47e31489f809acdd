from __future__ import annotations

from optuna.samplers import RandomSampler
import pytest

from benchmarks import suggestion


def test_the_table_says_medians_and_ratios() -> None:
    seconds = {"ours": {"30": [0.2, 0.9, 0.3]}, "GPSampler": {"30": [0.1, 0.1, 9.0]}}
    text = suggestion.table({"trials": [30], "seconds": seconds})
    assert "| ours | 0.30 s (3.0) |" in text and "| GPSampler | 0.10 s (1.0) |" in text


def test_the_first_suggestion_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    sampler = RandomSampler(seed=0)
    monkeypatch.setattr(sampler, "before_trial", lambda study, trial: asked.append(trial.number))
    seconds = suggestion.measure(sampler, 4, 3)
    assert len(seconds) == 3 and asked == [4, 5, 6, 7]
