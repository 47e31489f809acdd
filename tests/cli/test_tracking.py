"""What the trackers are told, read back from what each has written; all offline."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import json
from pathlib import Path
import struct
import sys
from typing import Any

import optuna
from optuna.trial import TrialState
import pytest
from typer.testing import Result

from optuna_llmbo.cli import tracking
from optuna_llmbo.cli.options import TrackerName
from optuna_llmbo.cli.search import run_trials
from optuna_llmbo.cli.tracking import Tracker
from optuna_llmbo.cli.tracking import trackers
from optuna_llmbo.errors import InputError
from optuna_llmbo.study.progress import Goal
from tests.cli.test_cli import data as data
from tests.cli.test_cli import load
from tests.cli.test_cli import tune as tune


Tune = Callable[..., Result]
LOSS = (Goal("loss", "minimize"),)
TWO = (Goal("loss", "minimize"), Goal("seconds", "minimize"))


@pytest.fixture(autouse=True)
def only_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No tracker finds a server, reports its use, or writes beside its folder."""
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.chdir(tmp_path)


def searched(n_goals: int, told: list[Tracker]) -> optuna.Study:
    """Trials 0 and 3 are complete, 1 is pruned, and 2 has failed; they end out of order."""
    study = optuna.create_study(study_name="math", directions=["minimize"] * n_goals)
    trials = [study.ask() for _ in range(4)]
    for trial in (trials[1], trials[0], trials[3], trials[2]):
        trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)
        trial.suggest_categorical("schedule", ["linear", None])
        trial.set_user_attr("llmbo:mean", [1.0])
        trial.set_user_attr("recipe", {"rank": 4})
        state, values = TrialState.COMPLETE, [2.5 - trial.number / 4, 7.0][:n_goals]
        if n_goals == 1:
            for step in (50, 100)[: 1 + (trial.number != 1)]:
                trial.report(3.0 - step / 100, step)
        if trial.number in (1, 2):
            state = TrialState.PRUNED if trial.number == 1 else TrialState.FAIL
        ended = study.tell(trial, values if state is TrialState.COMPLETE else None, state=state)
        for tracker in told:
            tracker(study, ended)
    return study


@pytest.mark.long
def test_mlflow(tmp_path: Path) -> None:
    import mlflow

    (tracker,) = trackers([TrackerName.mlflow], None, LOSS)
    study = searched(1, [tracker])
    assert tracker.place == f"sqlite:///{tmp_path}/tracking/mlflow.db"
    client = mlflow.MlflowClient(tracker.place)
    (experiment,) = client.search_experiments(filter_string="name = 'math'")
    runs = {int(r.info.run_name): r.data for r in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == [0, 1, 2, 3]
    for number, run in runs.items():
        params = {name: str(value) for name, value in study.trials[number].params.items()}
        assert run.params == params
        assert run.tags["llmbo:mean"] == "[1.0]" and run.tags["recipe"] == "{'rank': 4}"
        assert run.tags["state"] == study.trials[number].state.name
    values = [{"loss": 2.5}, {"loss": 2.5}, {}, {"loss": 1.75}]  # the pruned one's last report
    assert [runs[number].metrics for number in range(4)] == values


@pytest.mark.long
def test_mlflow_with_several_metrics_where_its_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    uri = f"sqlite:///{tmp_path}/elsewhere.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    (tracker,) = trackers([TrackerName.mlflow], None, TWO)
    searched(2, [tracker])
    assert tracker.place == uri and not (tmp_path / "tracking").exists()
    client = mlflow.MlflowClient(uri)
    (experiment,) = client.search_experiments(filter_string="name = 'math'")
    metrics = [run.data.metrics for run in client.search_runs([experiment.experiment_id])]
    assert {"loss": 2.5, "seconds": 7.0} in metrics
    (named,) = trackers([TrackerName.mlflow], tmp_path / "here", TWO)
    assert named.place == f"sqlite:///{tmp_path}/here/mlflow.db"


def records(path: Path) -> Iterator[Any]:
    """The records of an offline run: a log in blocks as LevelDB writes it, after 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    raw = path.read_bytes()
    assert raw[:4] == b":W&B"
    at, text = 7, b""
    while at + 7 <= len(raw):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", raw[at : at + 7])
        text, at = text + raw[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # a whole record, or its last part
            record, text = wandb_internal_pb2.Record.FromString(text), b""
            yield record


def runs_of(folder: Path) -> dict[int, tuple[Any, dict[str, Any], dict[str, Any]]]:
    """By trial: the last description, the configuration and the logged values of each run."""
    import wandb

    wandb.teardown()  # its service writes what is left, as at the end of a program
    found = {}
    for path in folder.glob("wandb/offline-run-*/*.wandb"):
        every = list(records(path))
        run = [one.run for one in every if one.WhichOneof("record_type") == "run"][-1]
        config = {one.key: json.loads(one.value_json) for one in run.config.update}
        (history,) = [one.history for one in every if one.WhichOneof("record_type") == "history"]
        logged = {one.nested_key[0]: json.loads(one.value_json) for one in history.item}
        found[logged["trial_number"]] = (run, config, logged)
    return found


@pytest.mark.long
@pytest.mark.parametrize("goals", [LOSS, TWO])
def test_wandb(tmp_path: Path, goals: tuple[Goal, ...]) -> None:
    (tracker,) = trackers([TrackerName.wandb], tmp_path / "runs", goals)
    study = searched(len(goals), [tracker])
    assert tracker.look == f"wandb sync {tmp_path}/runs/wandb/offline-run-*"
    runs = runs_of(tmp_path / "runs")
    assert sorted(runs) == [0, 1, 2, 3]
    for number, (run, config, logged) in runs.items():
        trial = study.trials[number]
        assert run.project == "optuna-llmbo" and run.run_group == "math"
        assert run.display_name == f"trial/{number}/math"
        assert trial.params.items() <= logged.items() and trial.params.items() <= config.items()
        assert config["trial"]["outcome"] == ["complete", "pruned", "failed", "complete"][number]
        names = [goal.name for goal in goals]
        assert [logged.get(name) for name in names] == list(trial.values or [None] * len(names))


@pytest.mark.parametrize("goals", [LOSS, TWO])
def test_tensorboard(tmp_path: Path, goals: tuple[Goal, ...]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    (tracker,) = trackers([TrackerName.tensorboard], None, goals)
    study = searched(len(goals), [tracker])
    place = tmp_path / "tracking" / "tensorboard"
    assert tracker.look == f"tensorboard --logdir {place}"
    assert len(list((place / "math").iterdir())) == 4
    for trial in study.trials:
        run = EventAccumulator(str(place / "math" / f"trial-{trial.number}")).Reload()
        is_complete = trial.state is TrialState.COMPLETE
        for goal, value in zip(goals, trial.values if is_complete else (), strict=False):
            assert [one.value for one in run.Scalars(goal.name)] == [value]
        there = {step: value for step, value in trial.intermediate_values.items()}
        tags = run.Tags()["scalars"]
        reports = run.Scalars("reports/loss") if there else []
        assert {one.step: one.value for one in reports} == pytest.approx(there)
        assert ("loss" in tags) == is_complete
        (start,) = [
            plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
            for name, content in run.PluginTagToContent("hparams").items()
            if name.endswith("session_start_info")
        ]
        assert start.hparams["learning_rate"].number_value == trial.params["learning_rate"]
        assert start.hparams["schedule"].string_value == str(trial.params["schedule"])


def test_what_cannot_be_tracked_costs_no_trial(warnings_logged: list[str]) -> None:
    def broken(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        raise ConnectionError("no route to host")

    tracker = Tracker(TrackerName.mlflow, "there", "look", broken)
    study = optuna.create_study()
    begun = iter([study.ask(), study.ask(), None])
    run_trials(study, lambda trial: 1.0, lambda: next(begun), [tracker])
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert warnings_logged == ["mlflow cannot track a trial: ConnectionError: no route to host"]


@pytest.mark.parametrize(
    ("name", "module", "packages"),
    [
        ("mlflow", "mlflow", "optuna-integration mlflow"),
        ("wandb", "wandb", "optuna-integration wandb"),
        ("wandb", "optuna_integration", "optuna-integration wandb"),
        ("tensorboard", "torch.utils.tensorboard", "tensorboard"),
    ],
)
def test_a_package_that_is_missing(
    tune: Tune, monkeypatch: pytest.MonkeyPatch, name: str, module: str, packages: str
) -> None:
    """Is said before anything is loaded."""
    monkeypatch.setitem(sys.modules, module, None)
    result = tune(track=name, model="nowhere")
    assert result.exit_code == 2
    assert f"--track {name} needs the package {packages.split()[-1]}" in result.stderr or (
        module == "optuna_integration" and "needs the package optuna-integration" in result.stderr
    )
    assert f"pip install {packages}." in result.stderr


def test_mistakes(tune: Tune, tmp_path: Path) -> None:
    result = tune(track_to=tmp_path / "there")
    assert result.exit_code == 2 and "--track-to: expected a --track" in result.stderr
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/tensorboard cannot be made"):
        trackers([TrackerName.tensorboard], tmp_path / "file", LOSS)


def test_secrets_of_an_address_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@host/runs")
    (tracker,) = trackers([TrackerName.mlflow], None, LOSS)
    assert "secret" not in tracker.place + tracker.look and "me:***@host" in tracker.place


@pytest.mark.long
def test_a_search_with_all_trackers(tune: Tune, tmp_path: Path) -> None:
    """With `--json` nothing of theirs is on standard output."""
    import mlflow

    place = tmp_path / "all"
    result = tune("--json", trials=2, track=["mlflow", "wandb", "tensorboard"], track_to=place)
    assert result.exit_code == 0, result.output
    events = [json.loads(line)["event"] for line in result.stdout.splitlines()]
    assert events == ["start", "trial", "estimate", "trial", "summary"]
    values = [trial.value for trial in load(tmp_path).trials]
    client = mlflow.MlflowClient(f"sqlite:///{place}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'lora'")
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.run_name"])
    assert [run.data.metrics["loss"] for run in runs] == values
    assert [logged["loss"] for _, (_, _, logged) in sorted(runs_of(place).items())] == values
    assert {path.name for path in (place / "tensorboard" / "lora").iterdir()} == {
        "trial-0",
        "trial-1",
    }
    shown = tune(trials=2, track="tensorboard", track_to=place)
    assert f"to look at it: tensorboard --logdir {place}/tensorboard" in shown.stdout


def test_every_tracker_is_there() -> None:
    assert set(tracking._TRACKERS) == set(tracking._NEEDED) == set(TrackerName)
