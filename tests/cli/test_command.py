"""`optuna-llmbo search`."""

from __future__ import annotations

from collections.abc import Callable
import json
import math
from pathlib import Path
import shlex
import signal
import sys
from typing import Any

import optuna
from optuna.trial import TrialState
import pytest
from typer.testing import CliRunner
from typer.testing import Result

from optuna_llmbo import cli
from optuna_llmbo.cli.command import shares
from optuna_llmbo.errors import InputError
from tests.command.conftest import COMMAND
from tests.command.conftest import SETTINGS
from tests.command.processes import begin
from tests.command.processes import is_alive
from tests.command.processes import wait_until


SPACE = """
[learning_rate]
type = "float"
low = 1e-5
high = 1e-1
log = true

[lora_rank]
type = "int"
low = 4
high = 64
log = true
"""

Search = Callable[..., Result]


def write(settings: dict[str, Any]) -> None:
    """The files of a search, in the current folder."""
    Path("train.json").write_text(json.dumps(SETTINGS | settings))
    Path("space.toml").write_text(SPACE)


def arguments(*more: object, **options: object) -> list[str]:
    given: dict[str, object] = {
        "command": shlex.join(COMMAND),
        "config": "train.json",
        "space": "space.toml",
        "metric": "eval_loss",
        "trials": 4,
        "grace": "1s",
        "sampler": "random",
    }
    words = [str(x) for name, value in (given | options).items() for x in (f"--{name}", value)]
    sets = ["training.learning_rate=learning_rate", "output_dir={folder}/output"]
    return ["search", *words, *(x for text in sets for x in ("--set", text)), *map(str, more)]


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    """Runs `optuna-llmbo search` on the training program, with settings of it."""
    monkeypatch.chdir(tmp_path)

    def run(*more: object, settings: dict[str, Any] | None = None, **options: object) -> Result:
        write(settings or {})
        line = arguments(*more, **options)
        return CliRunner().invoke(cli.app, line, env={"COLUMNS": "200"})

    return run


def load(name: str = "search") -> optuna.Study:
    return optuna.load_study(study_name=name, storage="sqlite:///search.db")


@pytest.mark.long
def test_a_search_and_how_it_goes_on(search: Search) -> None:
    result = search()
    assert result.exit_code == 0, result.output
    assert "The first trial is the configuration as it is: learning_rate=0.0001, lora_rank=8." in (
        result.output
    )
    study = load()
    best = study.best_trial
    assert (
        f"Files of the best trial: {best.user_attrs['folder']}, its configuration" in result.output
    )
    assert study.trials[0].params == {"learning_rate": 1e-4, "lora_rank": 8}
    assert study.trials[0].user_attrs["is_default"] and len(study.trials) == 4
    for trial in study.trials:
        folder = Path(f"runs/trial-{trial.number:04}").resolve()
        assert trial.user_attrs["folder"] == str(folder) and (folder / "train.json").exists()
        written = json.loads((folder / "train.json").read_text())
        assert written["lora_rank"] == trial.params["lora_rank"]
        assert trial.value == pytest.approx(_loss(trial.params)) or trial.state.name == "PRUNED"
    again = search(trials=6)
    assert "Resuming: 4 of 6 trials are there." in again.output and len(load().trials) == 6
    other = search(trials=6, settings={"max_steps": 5})
    assert other.exit_code == 2 and "train.json: max_steps (4, now 5)" in other.output


def _loss(params: dict[str, Any]) -> float:
    rate, rank = params["learning_rate"], params["lora_rank"]
    return (math.log10(rate) + 3) ** 2 + abs(math.log2(rank) - 4) / 10


def test_events(search: Search) -> None:
    result = search("--json", trials=2, context="method=lora")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one["event"] for one in events] == ["start", "trial", "estimate", "trial", "summary"]
    assert events[0]["context"] == {"method": "lora"} and events[0]["base_loss"] is None
    assert list(events[1]["reports"]) == ["25", "50", "75", "100"]
    assert events[1]["folder"].endswith("runs/trial-0000")


@pytest.mark.long
def test_at_once(search: Search) -> None:
    result = search("--parallel", 3, gpus="0,1,2,3,4,5", trials=7)
    assert result.exit_code == 0, result.output
    trials = load().trials
    assert len(trials) == 7 and {trial.state for trial in trials} <= {
        TrialState.COMPLETE,
        TrialState.PRUNED,
    }
    params = [tuple(trial.params.values()) for trial in trials]
    assert len(set(params)) == 7
    unshared = search("--parallel", 2, trials=7)
    assert "The study has its 7 trials" in unshared.output
    assert "All 2 trials at once see the same devices" in unshared.output


def test_several_failures_end_the_search_also_at_once(search: Search) -> None:
    result = search("--parallel", 2, settings={"mode": "fails"}, trials=9)
    assert result.exit_code == 1
    assert "exit code 3: ValueError: no such dataset 'mine'" in result.output
    assert "3 trials failed one after another" in result.output
    assert len(load().trials) <= 5
    assert TrialState.RUNNING not in {trial.state for trial in load().trials}


def test_infeasible_trials_are_said(search: Search) -> None:
    result = search(settings={"mode": "out of memory"}, trials=2)
    assert result.exit_code == 0
    assert "infeasible (out of memory (torch.OutOfMemoryError" in result.output


@pytest.mark.long
def test_pruned_trials_say_when(search: Search) -> None:
    """By epoch, where nothing else is told."""
    code = (
        "import sys, time\nfor i in range(1, 9):\n"
        "    print({'score': float(sys.argv[1]) + 1 / i, 'epoch': i / 2}); time.sleep(0.15)"
    )
    command = shlex.join([sys.executable, "-S", "-c", code, "{learning_rate}", "{lora_rank}"])
    words = arguments(command=command, metric="score", trials=12, study="b", folder="b")
    drop = {"--set", "--config", "train.json"}
    words = [w for w in words if w not in drop and not w.startswith(("training.", "output_dir"))]
    write({})
    result = CliRunner().invoke(cli.app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "No trial runs the configuration as it is: nothing says which value" in result.output
    assert load("b").user_attrs["report_axis"] == "epoch"
    assert "at epoch 0.5" in result.output


@pytest.mark.long
def test_limits(search: Search) -> None:
    slow = {"mode": "hangs"}
    result = search("--trial-timeout", "1s", settings=slow, trials=1)
    assert result.exit_code == 0 and "over the time limit of a trial, 1 s" in result.output
    result = search(
        "--timeout", "1s", "--stop-at-timeout", settings=slow, trials=3, study="b", folder="b"
    )
    assert result.exit_code == 0 and "The time is over" in result.output
    assert load("b").trials[0].user_attrs["interrupted"]
    assert search("--stop-at-timeout", trials=1).exit_code == 2


@pytest.mark.long
@pytest.mark.parametrize("parallel", [1, 2])
def test_ctrl_c(search: Search, tmp_path: Path, parallel: int) -> None:
    write({"mode": "children", "seconds_a_step": 1.0, "max_steps": 600})
    process = begin(*arguments("--parallel", parallel, trials=9))
    wait_until(lambda: len(list(tmp_path.glob("runs/*/output/processes"))) == parallel, 120)
    files = list(tmp_path.glob("runs/*/output/processes"))
    pids = [pid for path in files for pid in json.loads(path.read_text())]
    assert len(pids) == 3 * parallel and all(map(is_alive, pids))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and b"Interrupted." in output
    assert not any(map(is_alive, pids))
    trials = load().trials
    assert len(trials) == parallel
    assert all(t.state is TrialState.FAIL and t.user_attrs["interrupted"] for t in trials)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "x"], "--set 'x': expected NAME=VALUE"),
        (["--set", "nope=1"], "has no key 'nope'"),
        (["--default", "rank=4"], "there is no parameter 'rank'"),
        (["--gpus", "0,1", "--parallel", "4"], "cannot share out evenly"),
        (["--context", "method=lore"], "Did you mean 'lora'"),
        (["--direction", "down"], "direction must be one of"),
        (["--llm", "x"], "--llm is read by --sampler llmbo only"),
        (["--grace", "soon"], "expected"),
    ],
)
def test_mistakes_exit_with_2(search: Search, more: list[str], message: str) -> None:
    result = search(*more)
    assert result.exit_code == 2 and message in result.output
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("gpus", "parallel", "expected"),
    [
        (None, 4, ()),
        ("0", 1, ("0",)),
        ("0,1,2,3", 4, ("0", "1", "2", "3")),
        ("0, 1,2,3", 2, ("0,1", "2,3")),
        ("GPU-a,GPU-b", 1, ("GPU-a,GPU-b",)),
    ],
)
def test_shares(gpus: str | None, parallel: int, expected: tuple[str, ...]) -> None:
    assert shares(gpus, parallel) == expected


@pytest.mark.parametrize(
    ("gpus", "parallel"), [("0,1,2", 2), ("0", 2), ("0,0", 2), ("0,", 1), ("", 1)]
)
def test_devices_that_cannot_be_shared(gpus: str, parallel: int) -> None:
    with pytest.raises(InputError, match="--gpus"):
        shares(gpus, parallel)
