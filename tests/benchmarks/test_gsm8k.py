"""The kept results of GSM8K, and that the commands exist."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from benchmarks import gsm8k
from optuna_llmbo import cli


def test_commands_have_these_options() -> None:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    for name, words in gsm8k.stages().items():
        options = {o for p in commands[name].params for o in p.opts}
        assert words[0] == name and {w for w in words if w.startswith("--")} <= options


def test_the_data_are_the_first_problems(tmp_path: Path) -> None:
    for name in ("train", "test"):
        lines = [json.dumps({"question": str(i), "answer": "1"}) for i in range(1000)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    (tmp_path / "out").mkdir()
    gsm8k.write_data(tmp_path, tmp_path / "out")
    lines = (tmp_path / "out" / "test.jsonl").read_text().splitlines()
    assert len(lines) == gsm8k.N_TEST and json.loads(lines[-1])["question"] == str(len(lines) - 1)


def test_the_document_shows_the_results() -> None:
    document = (Path(__file__).parents[2] / "docs" / "benchmarks" / "training.md").read_text()
    rows = [row for row in gsm8k.report().splitlines() if row.startswith("|")]
    assert len(rows) > 12 and all(row in document for row in rows)
