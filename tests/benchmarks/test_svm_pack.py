"""The knowledge pack's benchmark, and its table in docs/knowledge.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import svm_pack


DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_is_in_the_documentation() -> None:
    record = json.loads(svm_pack.RESULTS.read_text())
    assert svm_pack.report(record) in (DOCS / "knowledge.md").read_text()


@pytest.mark.parametrize("with_pack", [False, True])
def test_a_study(with_pack: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svm_pack, "N_TRIALS", 2)
    best = svm_pack.run(svm_pack.objective_of("wine"), with_pack, seed=0)
    assert len(best) == 2 and 100 > best[0] >= best[1] >= 0
