"""Earlier studies on real runs: on small made-up tables."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.race import methods
from benchmarks.race import real
from benchmarks.race import real_nmt
from benchmarks.race import sources
from benchmarks.race import study
from benchmarks.race import tasks
from benchmarks.race import variants
from benchmarks.race.study import Plan
from benchmarks.race.task import TrialFailed
from tests.benchmarks.race.conftest import MadeUp


CELL = {"lora_rank": 2, "batch_size": 16, "learning_rate": 2e-5}
NAME = "real-transfer-nmt-zh-en-bleu-xglm-1.7B"


def nmt_table() -> list[dict[str, Any]]:
    """Three cells of each model; model i reaches BLEU 10 + i, the last cells 20 more."""
    return [
        {"pair": pair, "llm": llm, **CELL, "lora_rank": rank}
        | {"bleu_best": 10.0 + i + (20.0 if rank == 64 else 0.0), "ppl_best": 2.0 + i + rank}
        for pair in real_nmt.PAIRS
        for i, llm in enumerate(real_nmt.LLMS)
        for rank in (2, 16, 64)
    ]


def test_one_model_is_tuned_and_the_others_are_known(made_up: MadeUp) -> None:
    made_up.write("nmt", nmt_table())
    task = real.tasks()[NAME]()
    assert list(task.distributions or {}) == ["lora_rank", "batch_size", "learning_rate"]
    assert (task.best, task.value(CELL)) == (-34.0, -14.0)
    with pytest.raises(TrialFailed):
        task.value(CELL | {"batch_size": 64})
    earlier = {one.study_name: one.trials for one in variants.earlier_study(task)}
    assert list(earlier) == [llm for llm in real_nmt.LLMS if llm != "xglm-1.7B"]
    for i, llm in enumerate(real_nmt.LLMS):
        if llm in earlier:
            assert [trial.value for trial in earlier[llm]] == [-10.0 - i, -10.0 - i, -30.0 - i]
            assert [trial.params["lora_rank"] for trial in earlier[llm]] == [2, 16, 64]
    (reversed_one, *_) = variants.reversed_study(task)
    assert [trial.value for trial in reversed_one.trials] == [10.0, 10.0, 30.0]


def test_what_the_others_say_is_tried(made_up: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up.write("nmt", nmt_table())
    task = real.tasks()[NAME]()
    monkeypatch.setattr(tasks, "load", lambda _: task)
    record = study.run(Plan(NAME, "ours-transfer", "plain", seed=0, budget=1))
    assert record["error"] is None and record["values"] == [-34.0]


def test_the_smaller_llama_is_known_to_the_larger(made_up: MadeUp) -> None:
    row: dict[str, Any] = real.LLAMA_DEFAULT | {"run_file": "lhs_bis", "state": None}
    row |= {"mmlu_acc": 0.3, "hellaswag_acc_norm": 0.4}
    large = {"run_file": "lhs", "lora_rank": 500, "mmlu_acc": 0.6}
    made_up.write("llama", [row, row | {"lora_alpha": 9, "mmlu_acc": 0.4}, row | large])
    (earlier,) = variants.earlier_study(real.llama("3b", "mmlu"))
    assert [trial.value for trial in earlier.trials] == pytest.approx([0.7, 0.6])
    assert all(trial.distributions["lora_rank"].high == 512 for trial in earlier.trials)  # type: ignore[attr-defined]


def test_who_has_sources() -> None:
    for name in (*real.TRANSFER_TUNING, *real.TRANSFER_REPORTED):
        assert methods.can_search("ours-transfer", name)
    assert not methods.can_search("ours-transfer", "real-nmt-zh-en-bleu")
    assert not methods.can_search("ours-transfer", "real-llama-1b-mmlu")
    assert set(sources.SOURCES) <= set(tasks.TASKS)
