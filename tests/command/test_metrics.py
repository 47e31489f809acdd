from __future__ import annotations

import json
import math
from pathlib import Path
import re
from typing import Any

import pytest

from optuna_llmbo.command.metrics import Metrics
from optuna_llmbo.command.metrics import Report


class Trial:
    """A trial's folder, into which a command writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log.txt"
        self.log.touch()

    def metrics(self, metric: str = "eval_loss", **more: Any) -> Metrics:
        return Metrics(self.folder, self.log, metric, **more)

    def prints(self, text: str) -> None:
        with self.log.open("a") as log:
            log.write(text + "\n")

    def adds(self, name: str, **entry: float) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def writes(self, name: str, content: Any) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path)


def state(max_steps: int, *entries: dict[str, float]) -> dict[str, Any]:
    return {"max_steps": max_steps, "log_history": list(entries)}


def test_the_same_evaluation_told_thrice_is_one(trial: Trial) -> None:
    """Printed with fewer digits, as the Trainer does, it does not count where a file has it."""
    metrics = trial.metrics(settings={"num_train_epochs": 1.0})
    trial.prints("{'eval_loss': '1.23', 'epoch': '0.5'}")
    assert metrics.read() and metrics.axis() == "percent"
    assert metrics.reports("percent") == [Report(50, 1.23)]
    trial.adds("out/trainer_log.jsonl", current_steps=10, total_steps=20, eval_loss=1.2345)
    trial.writes(
        "out/checkpoint-10/trainer_state.json", state(20, {"eval_loss": 1.2345, "step": 10})
    )
    assert metrics.read() and metrics.reports("percent") == [Report(50, 1.2345)]
    assert metrics.value() == 1.2345
    assert not metrics.read()


def test_checkpoints_and_the_end(trial: Trial) -> None:
    metrics = trial.metrics()
    first, second = {"eval_loss": 2.0, "step": 5}, {"eval_loss": 1.0, "step": 10}
    trial.writes("o/checkpoint-5/trainer_state.json", state(12, first))
    metrics.read()
    trial.writes("o/checkpoint-10/trainer_state.json", state(12, first, second))
    trial.writes("o/all_results.json", {"eval_loss": 0.5, "epoch": 1.0})
    metrics.read()
    assert metrics.reports("percent") == [Report(40, 2.0), Report(80, 1.0)]
    assert metrics.value() == 1.0  # results are read at the end only
    metrics.read(is_final=True)
    assert metrics.value() == 0.5 and metrics.value(best="maximize") == 2.0
    assert metrics.reports("percent") == [Report(40, 2.0), Report(80, 1.0)]


def test_a_state_that_is_half_written_is_read_later(trial: Trial) -> None:
    metrics = trial.metrics()
    path = trial.folder / "trainer_state.json"
    whole = json.dumps(state(10, {"eval_loss": 2.0, "step": 5}))
    path.write_text(whole[:20])
    assert not metrics.read() and metrics.axis() is None and metrics.value() is None
    path.write_text(whole)
    assert metrics.read() and metrics.value() == 2.0
    path.write_text("")
    assert not metrics.read() and metrics.value() == 2.0


def test_a_log_that_is_written_anew_replaces_what_it_said(trial: Trial) -> None:
    metrics = trial.metrics()
    trial.adds("a.jsonl", step=1, eval_loss=9.0)
    metrics.read()
    (trial.folder / "a.jsonl").unlink()
    trial.adds("a.jsonl", step=2, eval_loss=3.0)
    trial.adds("a.jsonl", step=1, eval_loss=4.0)
    metrics.read()
    assert metrics.reports("step") == [Report(1, 4.0), Report(2, 3.0)] and metrics.value() == 3.0


@pytest.mark.parametrize(
    ("entries", "axis", "reports"),
    [
        ([{"step": 7, "total": 70}], "percent", [Report(10, 0.5)]),
        ([{"percent": 33.0}], "percent", [Report(30, 0.5)]),
        ([{"step": 1, "total": 1000}], "percent", [Report(5, 0.5)]),
        ([{"epoch": 0.5, "percent": 49.9}], "percent", [Report(50, 0.5)]),
        ([{"step": 6, "total": 11}], "percent", [Report(50, 0.5)]),
        ([{"step": 98, "total": 100}], "percent", [Report(95, 0.5)]),
        ([{"step": 11, "total": 11}], "percent", [Report(100, 0.5)]),
        ([{"step": 7, "epoch": 0.5}], "step", [Report(7, 0.5)]),
        ([{"epoch": 0.5}], "epoch", [Report(50, 0.5)]),
        ([{}, {}], "evaluation", [Report(1, 0.5), Report(2, 0.5)]),
    ],
)
def test_what_a_step_is(trial: Trial, entries: Any, axis: Any, reports: list[Report]) -> None:
    metrics = trial.metrics()
    for entry in entries:
        trial.adds("a.jsonl", eval_loss=0.5, **entry)
    metrics.read()
    assert metrics.axis() == axis and metrics.reports(axis) == reports


@pytest.mark.parametrize(
    ("settings", "axis"),
    [
        ({"num_train_epochs": 2}, "percent"),
        ({"trainer.epochs": "2"}, "percent"),
        ({"num_train_epochs": 2, "max_steps": -1}, "percent"),
        ({"num_train_epochs": 2, "max_steps": 100}, "epoch"),
        ({"a.epochs": 2, "b.epochs": 3}, "epoch"),
        ({"num_train_epochs": 0.4}, "epoch"),  # the run is longer than that
        ({}, "epoch"),
    ],
)
def test_epochs_of_the_configuration(trial: Trial, settings: Any, axis: str) -> None:
    metrics = trial.metrics(settings=settings)
    trial.prints("{'eval_loss': 1.0, 'epoch': 1.0}")
    metrics.read()
    assert metrics.axis() == axis


def test_an_expression(trial: Trial) -> None:
    pattern = re.compile(r"step (?P<step>\d+) val (?P<value>\S+)")
    metrics = trial.metrics("val", pattern=pattern)
    trial.prints("step 1 val 2.5\nnoise\nstep 2 val 2.0\nstep 3 val")
    trial.adds("a.jsonl", val=0.0, step=9)  # is not asked for
    metrics.read()
    assert metrics.reports("step") == [Report(1, 2.5), Report(2, 2.0)]
    files = trial.metrics("val", pattern=pattern, files=["logs/*.txt"])
    (trial.folder / "logs").mkdir()
    (trial.folder / "logs/a.txt").write_text("step 4 val 1.5\n")
    files.read()
    assert files.value() == 1.5


def test_named_files(trial: Trial, tmp_path: Path) -> None:
    trial.adds("a/metrics.log", f1=0.25, step=1)
    trial.adds("other.jsonl", f1=0.75, step=2)
    outside = tmp_path / "outside.json"
    outside.write_text('{"f1": 0.5, "step": 3}')
    trial.writes("trial.json", {"f1": 9.0})  # is no result
    for files, value in (
        (["a/*.log"], 0.25),
        (["*.json"], 0.5),
        ([str(outside)], 0.5),
        (["none"], None),
    ):
        metrics = trial.metrics("f1", files=files)
        metrics.read(is_final=True)
        assert metrics.value() == value


def test_what_is_not_finite(trial: Trial) -> None:
    metrics = trial.metrics()
    trial.prints("{'eval_loss': 1.0, 'epoch': 0.5, 'grad_norm': nan}")
    metrics.read()
    assert metrics.not_finite() is None
    trial.prints("{'eval_loss': nan, 'epoch': 1.0}")
    metrics.read()
    found = metrics.not_finite()
    assert found is not None and math.isnan(found)


def test_progress_and_names(trial: Trial) -> None:
    metrics = trial.metrics()
    assert metrics.progress() == (None, None)
    trial.prints("{'loss': 9.0, 'epoch': 0.1}")
    metrics.read()
    assert metrics.progress() == (None, 9.0)
    trial.adds("trainer_log.jsonl", current_steps=1, total_steps=4, loss=8.0)
    trial.adds("trainer_log.jsonl", current_steps=2, total_steps=4, eval_loss=1.0)
    metrics.read()
    assert metrics.progress() == (0.5, 8.0)
    assert metrics.names() == ["current_steps", "epoch", "eval_loss", "loss", "total_steps"]


def test_hidden_and_deep_folders_are_not_looked_into(trial: Trial) -> None:
    trial.adds(".cache/a.jsonl", eval_loss=1.0)
    trial.adds("1/2/3/4/5/a.jsonl", eval_loss=1.0)
    metrics = trial.metrics()
    metrics.read(is_final=True)
    assert metrics.value() is None
    trial.adds("1/2/3/4/a.jsonl", eval_loss=2.0)
    metrics.read(is_final=True)
    assert metrics.value() == 2.0
