"""Rows are divided as a `LoRAObjective` divides its examples; a row is its content."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.trainer.rows import keys_of
from optuna_llmbo.trainer.rows import Rows
from optuna_llmbo.trainer.rows import rows_of
from tests.trainer.conftest import completions


DATA = datasets.Dataset.from_list(
    [{**row, "topic": f"t{i % 3}"} for i, row in enumerate(completions(60))]
)


def divided(train: object = DATA, **changes: object) -> Rows:
    settings = {
        "validation": None, "test": None, "proxy": 0.5, "proxy_by": "random", "seed": 0, **changes,
    }  # fmt: skip
    return rows_of(train, settings.pop("validation"), settings.pop("test"), **settings)  # type: ignore[arg-type]


def prompts(rows: object) -> list[str]:
    return [row["prompt"] for row in rows]  # type: ignore[attr-defined]


def test_as_the_other_objective(chat_llm: Path) -> None:
    pairs = DATA.rename_column("completion", "response").remove_columns("topic")
    lora = LoRAObjective(chat_llm, pairs, proxy=0.5, test=6, device="cpu", dtype=torch.float32)
    theirs, ours = lora.prepare(), divided(test=6)
    assert ours.test is not None
    for part, other in ((ours.train, theirs.train), (ours.validation, theirs.validation)):
        assert prompts(part) == [example.record.prompt for example in other]
    assert prompts(ours.test) == [example.record.prompt for example in theirs.test]
    assert prompts(ours.pool) == [example.record.prompt for example in theirs.pool]
    assert ours.fraction == theirs.fraction


def test_a_larger_proxy_contains_a_smaller_one() -> None:
    small, large = divided(proxy=5), divided(proxy=0.9)
    assert prompts(large.train)[:5] == prompts(small.train)


@pytest.mark.parametrize("by", ["length", "topic"])
def test_stratified(by: str) -> None:
    rows = divided(proxy=12, proxy_by=by)
    assert len(set(prompts(rows.train))) == 12
    if by == "topic":
        topics = [row["topic"] for row in rows.train]
        assert {topics.count(f"t{i}") for i in range(3)} <= {3, 4, 5}


def test_copies_are_not_trained_on() -> None:
    twice = datasets.concatenate_datasets([DATA, DATA])
    rows = divided(twice, validation=10, test=10)
    assert rows.test is not None
    held_out = {*keys_of(rows.validation), *keys_of(rows.test)}
    assert len(held_out) == 20 and not held_out & set(keys_of(rows.pool))


def test_a_row_in_two_parts() -> None:
    with pytest.raises(InputError, match="1 of the validation rows are also in the training data"):
        divided(DATA.select(range(40)), validation=DATA.select(range(39, 60)))
    with pytest.raises(InputError, match="1 of the test rows are also in the validation data"):
        divided(
            DATA.select(range(40)),
            validation=DATA.select(range(40, 50)),
            test=DATA.select(range(49, 60)),
        )


def test_columns_may_stand_in_any_order() -> None:
    other = DATA.select_columns(list(reversed(DATA.column_names)))
    assert keys_of(other) == keys_of(DATA)


def test_sources(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in DATA))
    assert prompts(divided(file).train) == prompts(divided().train)
    assert prompts(divided(lambda: DATA).train) == prompts(divided().train)
    with pytest.raises(InputError, match="have no rows"):
        divided(DATA.select([]))
