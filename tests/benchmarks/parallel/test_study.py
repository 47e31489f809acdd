"""A real parallel study, as short as can be."""

from __future__ import annotations

import pytest

from benchmarks import postgres
from benchmarks.parallel import study
from benchmarks.parallel.study import Plan


@pytest.mark.slow
def test_workers_share_the_trials_out(monkeypatch: pytest.MonkeyPatch) -> None:
    if postgres.binaries() is None:
        pytest.skip("PostgreSQL is not installed")
    monkeypatch.setattr(study, "LOADED", ())  # this sampler needs none of it
    plan = Plan("bbob-sphere-2d", "random", workers=2, seed=0, budget=12, training=0.05)
    with postgres.cluster() as cluster:
        record = study.run(plan, cluster.url)
        failed = study.run(Plan("bbob-sphere-2d", "none", 1, 0, 12, 0.0), cluster.url)
    assert record["error"] is None
    assert len(record["values"]) == len(record["suggestion_seconds"]) == 12
    assert record["ends"] == sorted(record["ends"])
    assert record["ends"][-1] > 6 * 0.05
    assert record["duplicates"] == 0
    assert "unknown method 'none'" in failed["error"] and failed["values"] == []
