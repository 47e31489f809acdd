"""What is said of a chat file's way to TRL is what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import chat
from optuna_llmbo.lora.messages import messages_of


PAGE = (Path(__file__).parents[2] / "docs" / "lora.md").read_text()


def test_the_page_shows_the_result() -> None:
    results = json.loads(chat.RESULTS.read_text())
    table, _, rest = chat.report(results).partition("\n\n")
    assert table in PAGE
    assert f"A file of {results['examples']} conversations" in PAGE
    assert "TRL's differs by -0.0440." in rest and "TRL's is lower by 0.044:" in PAGE
    assert results["trl"]["before"] == pytest.approx(results["base_loss"], abs=2e-5)
    batch = results["winner"]["recipe"]["batch_size"]
    n = results["trl"]["examples"]
    assert (n, batch, -(-n // batch), n // batch) == (47, 8, results["trl"]["steps"], 5)
    assert "of 47 examples in batches of eight it makes six\nsteps and a trial five" in PAGE


def test_conversations_are_different_and_in_the_format() -> None:
    made = chat.conversations()
    assert len(made) == chat.N == len({json.dumps(row) for row in made})
    for row in made:
        roles = [turn["role"] for turn in messages_of(row["messages"], "here")]
        assert roles == ["system", "user", "assistant", "user", "assistant"]
