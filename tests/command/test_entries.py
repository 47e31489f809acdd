from __future__ import annotations

import json
import math
import re

import pytest

from optuna_llmbo.command.entries import entries_of_json
from optuna_llmbo.command.entries import Entry
from optuna_llmbo.command.entries import entry_of_line
from optuna_llmbo.command.entries import entry_of_match


def test_what_the_tools_write() -> None:
    """LLaMA-Factory's trainer_log.jsonl, the Trainer's printed dicts, other JSON."""
    place = '"current_steps": 5, "total_steps": 20, "epoch": 0.5, "percentage": 25.0'
    line = f'{{{place}, "eval_loss": 1.25}}'
    entry = entry_of_line(line)
    assert entry is not None and entry.values["eval_loss"] == 1.25
    assert (entry.step, entry.total, entry.epoch, entry.percent) == (5, 20, 0.5, 25)
    printed = entry_of_line("  5%|x | 1/20 {'eval_loss': '1.25', 'epoch': '0.5', 'name': 'x'}")
    assert printed == Entry({"eval_loss": 1.25, "epoch": 0.5}, epoch=0.5)
    nested = entry_of_line('{"step": 3, "eval": {"loss": 2, "best": true}}')
    assert nested is not None and nested.values == {"step": 3, "eval.loss": 2}


@pytest.mark.parametrize(
    "text", ["{'eval_loss': nan}", '{"eval_loss": NaN}', "{'eval_loss': 'nan'}"]
)
def test_what_is_no_number(text: str) -> None:
    entry = entry_of_line(text)
    assert entry is not None and math.isnan(entry.values["eval_loss"])


def test_what_is_infinite() -> None:
    for text in ("{'a': inf, 'b': -inf}", '{"a": Infinity, "b": -Infinity}'):
        entry = entry_of_line(text)
        assert entry is not None and entry.values == {"a": math.inf, "b": -math.inf}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "{}",
        "{'a': 'b'}",
        "loss 1.0",
        "{1, 2}",
        "{'a': f(1)}",
        "{'a': 1" + " " * 200_000 + "}",
    ],
)
def test_other_lines(line: str) -> None:
    assert entry_of_line(line) is None


def test_the_state_of_the_trainer() -> None:
    state = {
        "global_step": 4,
        "max_steps": 8,
        "best_metric": 0.1,
        "log_history": [{"loss": 2.0, "step": 2}, {"eval_loss": 1.0, "epoch": 0.5, "step": 4}],
    }
    entries = entries_of_json(json.dumps(state))
    assert entries is not None and [entry.step for entry in entries] == [2, 4]
    assert entries[1].values["eval_loss"] == 1.0 and entries[1].total == 8
    assert entries_of_json(json.dumps(state)[:-5]) is None
    assert entries_of_json('{"eval_loss": 0.5}') == [Entry({"eval_loss": 0.5})]
    assert entries_of_json("3") == []


def test_the_users_expression() -> None:
    pattern = re.compile(r"Step (?P<step>\d+)/(?P<total>\d+) \|.*?val_loss:(?P<value>\S+)")
    found = pattern.search("Step 20/80 | loss:1.5 val_loss:1.75 lr:1e-4")
    assert found is not None
    assert entry_of_match(found, "val_loss") == Entry({"val_loss": 1.75}, step=20, total=80)
    plain = re.search(r"acc=(\S+)", "acc=0.5")
    assert plain is not None and entry_of_match(plain, "acc") == Entry({"acc": 0.5})
    wrong = re.search(r"acc=(\S+)", "acc=none")
    assert wrong is not None and entry_of_match(wrong, "acc") is None
