"""The race on learning curves: a made-up grid of runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.race import curves
from benchmarks.race import real_nmt
from benchmarks.race import tasks
from benchmarks.race.curves import Plan
from benchmarks.race.task import TrialFailed
from optuna_llmbo.errors import InputError
from tests.benchmarks.race.conftest import MadeUp


NAME = "real-nmt-fr-en-bleu"
LENGTH = 8


def table() -> list[dict[str, Any]]:
    """All cells, of eight checkpoints; the rate decides, and what is bad is so from the start.

    Of the six models the last has no runs.
    """
    rows = []
    for llm in real_nmt.LLMS[:-1]:
        for i, rate in enumerate(real_nmt.LEVELS["learning_rate"]):
            for rank in real_nmt.LEVELS["lora_rank"]:
                for batch in real_nmt.LEVELS["batch_size"]:
                    bleu = [10.0 * i + step for step in (1, 2, 3, 4, 5, 6, 8, 7)]
                    row = {"pair": "fr-en", "llm": llm, "lora_rank": rank, "batch_size": batch}
                    row |= {"learning_rate": rate, "bleu_best": max(bleu), "ppl_best": 2.0}
                    row |= {"bleu_curve": json.dumps(bleu), "n_ckpt": len(bleu)}
                    rows.append(row)
    return rows


@pytest.fixture(autouse=True)
def study(made_up: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up.write("nmt", table())
    task = tasks.TASKS[NAME]()
    monkeypatch.setattr(tasks, "load", lambda _: task)


def run(pruner: str, method: str = "random", seed: int = 0) -> dict[str, Any]:
    return curves.run(Plan(NAME, method, pruner, seed))


def test_curves_are_looked_up_to_be_minimized() -> None:
    look_up = real_nmt.learning_curves("fr-en", "bleu")
    near = {"llm": "bloomz-3b", "lora_rank": 3, "batch_size": 17, "learning_rate": 9e-5}
    assert look_up(near) == [-11.0, -12.0, -13.0, -14.0, -15.0, -16.0, -18.0, -17.0]
    assert min(look_up(near)) == tasks.load(NAME).value(near)
    with pytest.raises(TrialFailed, match="real-nmt-fr-en-bleu has no run of"):
        look_up(near | {"llm": "xglm-2.9B"})
    assert (real_nmt.mean_length("fr-en"), real_nmt.longest("fr-en")) == (8.0, 8)


def test_a_study_ends_when_its_checkpoints_are_spent() -> None:
    record = run("none")
    assert record["budget"] == 30 * LENGTH
    ended = record["trials"]
    assert ended["fail"] > 0 and ended["pruned"] == 0
    assert ended["complete"] * LENGTH + ended["fail"] <= record["budget"]
    assert (ended["complete"] + ended["running"]) * LENGTH + ended["fail"] >= record["budget"]
    steps, values = zip(*record["improvements"], strict=True)
    assert values[-1] == -28.0 and steps[-1] <= record["budget"]
    assert list(values) == sorted(values, reverse=True) and list(steps) == sorted(set(steps))


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_pruning_saves_checkpoints_for_other_trials(pruner: str) -> None:
    pruned, whole = run(pruner), run("none")
    assert pruned["trials"]["pruned"] > 0
    assert sum(pruned["trials"].values()) > sum(whole["trials"].values())
    # not before a quarter of a run: even if all were pruned there, this is the most
    assert sum(pruned["trials"].values()) - pruned["trials"]["fail"] <= 30 * LENGTH / 2 + 1


@pytest.mark.parametrize("pruner", curves.PRUNERS)
def test_a_study_can_be_repeated(pruner: str) -> None:
    first, again = run(pruner, "tpe"), run(pruner, "tpe")
    assert first.pop("seconds") > 0.0 and again.pop("seconds") > 0.0
    assert first == again != run(pruner, "tpe", seed=1)


def test_ours_on_a_short_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "AT_RUNS", (6,))
    record = run("hyperband", "ours")
    assert record["budget"] == 6 * LENGTH and record["trials"]["pruned"] > 0


def test_what_was_found_by_a_checkpoint() -> None:
    record = {"improvements": [[2, 5.0], [7, 3.0]]}
    assert [curves.best_at(record, n) for n in (1, 2, 6, 7, 9)] == [math.inf, 5.0, 5.0, 3.0, 3.0]


def test_an_interrupted_race_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "curves.jsonl"

    def main(*more: str) -> list[str]:
        command = ["curves", "--tasks", NAME, "--methods", "random,tpe", "--out", str(out), *more]
        monkeypatch.setattr("sys.argv", command)
        curves.main()
        printed = capsys.readouterr()
        assert "| rank, pruner: median |" in printed.out
        assert "| tpe | hyperband |" in printed.out
        return printed.err.splitlines()

    assert len(main("--seeds", "1")) == 6
    with out.open("a") as file:
        file.write('{"task": "real')  # killed here
    assert [line[:5] for line in main("--seeds", "2") if line[0] == "["] == [
        f"[{i}/6]" for i in range(1, 7)
    ]
    assert len(main("--seeds", "1", "--pruners", "none", "--again")) == 2 + 1  # and half a line
    assert main("--report") == ["curves.jsonl, line 7: half written, skipped"]


def test_regrets_count_checkpoints_and_whole_seeds() -> None:
    column = [("tpe", "none"), ("random", "none")]
    records = {
        Plan(NAME, method, "none", seed): {"improvements": [[1, -8.0], [at, -28.0]]}
        for method, seed, at in (("tpe", 0, 80), ("random", 0, 81), ("tpe", 1, 1))
    }
    (ten,) = curves.regrets(records, column, 10)
    assert ten.shape == (1, 2) and ten[0, 0] == 0.0 and ten[0, 1] > 0.0
    (twenty,) = curves.regrets(records, column, 20)
    assert twenty.tolist() == [[0.0, 0.0]]
    with pytest.raises(InputError, match="has no seed with all of"):
        curves.regrets(records, [*column, ("gp", "none")], 10)


def test_unknown_names() -> None:
    for names in (["x"], ["ours"], ["none"]), ([NAME], ["x"], ["none"]), ([NAME], ["gp"], ["x"]):
        with pytest.raises(InputError, match="unknown .* 'x': expected one of"):
            curves.plans(*names, range(1))
