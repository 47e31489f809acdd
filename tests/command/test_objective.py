from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
import queue
import sys
import threading
import time
from typing import Any

import optuna
from optuna.distributions import IntDistribution
from optuna.trial import FixedTrial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from optuna_llmbo import CommandObjective
from optuna_llmbo.errors import InputError
from optuna_llmbo.study.outcome import outcome_of
from optuna_llmbo.study.outcome import TrialCrashed
from optuna_llmbo.study.time_limits import SearchTimedOut
from optuna_llmbo.study.training_progress import TrainingProgress
from tests.command.conftest import ASSIGN
from tests.command.conftest import COMMAND
from tests.command.conftest import Make
from tests.command.conftest import SETTINGS
from tests.command.conftest import SPACE
from tests.command.processes import is_alive
from tests.command.processes import wait_until


BEST = {"learning_rate": 1e-3, "lora_rank": 16}
DEFAULT = {"learning_rate": 1e-4, "lora_rank": 8}


class Prune(optuna.pruners.BasePruner):
    """Prunes at once."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        return True


def search(
    objective: CommandObjective, *several: dict[str, Any], study: optuna.Study | None = None
) -> list[FrozenTrial]:
    """Run these parameters."""
    study = study or optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for params in several:
        study.enqueue_trial(params)
    n = len(several)
    study.optimize(objective, n_trials=n, catch=(TrialCrashed, SearchTimedOut))
    return study.trials


def test_a_search(make: Make, tmp_path: Path) -> None:
    objective = make()
    assert objective.default_params == DEFAULT
    study = optuna.create_study(pruner=Prune())
    default, best = search(objective, DEFAULT, BEST, study=study)
    assert default.value == pytest.approx(1 + 0.1) and default.user_attrs["is_default"]
    assert default.intermediate_values == {
        25: pytest.approx(1.85),
        50: pytest.approx(1.35),
        75: pytest.approx(1.1 + 1 / 12),
        100: pytest.approx(1.1),
    }
    assert best.state is TrialState.COMPLETE or best.state is TrialState.PRUNED
    assert not best.user_attrs["is_default"]
    folder = tmp_path / "runs/trial-0000"
    assert default.user_attrs["folder"] == str(folder)
    assert default.user_attrs["config"] == str(folder / "train.json")
    assert default.user_attrs["exit_code"] == 0 and default.user_attrs["seconds"] > 0
    assert json.loads((folder / "train.json").read_text()) == SETTINGS | {
        "output_dir": f"{folder}/output"
    }
    assert (folder / "log.txt").read_text().startswith("{'eval_loss'")
    written = json.loads((tmp_path / "runs/trial-0001/train.json").read_text())
    assert written["training"]["learning_rate"] == 1e-3 and written["lora_rank"] == 16
    assert json.loads((tmp_path / "train.json").read_text()) == SETTINGS
    facts = json.loads((tmp_path / "runs/trial-0001/trial.json").read_text())
    assert facts["params"] == BEST and facts["command"].endswith("runs/trial-0001/train.json")
    assert study.user_attrs["report_axis"] == "percent"


def test_it_stops_what_is_pruned(make: Make) -> None:
    (trial,) = search(
        make(max_steps=1000, seconds_a_step=0.2), BEST, study=optuna.create_study(pruner=Prune())
    )
    assert trial.state is TrialState.PRUNED and outcome_of(trial) == "pruned"
    assert trial.user_attrs["pruned_reason"] == "by the pruner at 5%"
    assert trial.user_attrs["exit_code"] == -15
    assert trial.user_attrs["log_end"].startswith("{'eval_loss'")


@pytest.mark.parametrize(
    ("mode", "outcome", "attribute", "reason", "code"),
    [
        (
            "out of memory",
            "infeasible",
            "pruned_reason",
            "out of memory (torch.OutOfMemoryError: CUDA",
            1,
        ),
        ("is killed", "infeasible", "pruned_reason", "killed by SIGKILL", -9),
        ("fails", "failed", "failed_reason", "exit code 3: ValueError: no such dataset 'mine'", 3),
        (
            "no metric",
            "failed",
            "failed_reason",
            "wrote no 'eval_loss'. Did you mean 'eval_losses'?",
            0,
        ),
    ],
)
def test_each_end_is_the_trial_that_it_is(
    make: Make, mode: str, outcome: str, attribute: str, reason: str, code: int
) -> None:
    (trial,) = search(make(mode=mode), BEST)
    assert outcome_of(trial) == outcome
    assert reason in trial.user_attrs[attribute]
    assert trial.user_attrs["exit_code"] == code
    assert trial.user_attrs["log_end"].endswith(
        {1: "Tried 2 GiB.", 3: "'mine'"}.get(code, "'epoch': '1'}")
    )


def test_it_stops_what_diverges(make: Make, tmp_path: Path) -> None:
    (trial,) = search(make(mode="diverges", seconds_a_step=0.3, max_steps=1000), BEST)
    assert outcome_of(trial) == "infeasible"
    assert trial.user_attrs["pruned_reason"] == "diverged: eval_loss is nan"
    (quick,) = search(make({"folder": tmp_path / "quick"}, mode="diverges"), BEST)
    assert outcome_of(quick) == "infeasible"


def test_no_metrics_at_all(tmp_path: Path) -> None:
    (trial,) = search(script("print('trained')")(tmp_path), {"x": 1})
    assert "wrote no metrics into" in trial.user_attrs["failed_reason"]
    assert trial.user_attrs["log_end"] == "trained"


# --- limits ---


def test_a_trial_has_its_time(make: Make) -> None:
    (trial,) = search(make({"trial_timeout": 0.5}, mode="hangs"), BEST)
    assert outcome_of(trial) == "infeasible"
    assert trial.user_attrs["pruned_reason"].startswith("over the time limit of a trial")


def test_the_search_has_its_time(make: Make) -> None:
    objective = make(mode="hangs")
    objective.limits.ends_at = time.monotonic() + 0.3
    (trial,) = search(objective, BEST)
    assert outcome_of(trial) == "interrupted" and trial.user_attrs["exit_code"] == -15


def test_it_can_be_cancelled_from_another_thread(make: Make) -> None:
    objective = make(mode="children", max_steps=1000, seconds_a_step=1.0)
    study, ended = optuna.create_study(), queue.Queue[BaseException | None]()

    def run() -> None:
        try:
            study.optimize(objective, n_trials=1)
        except BaseException as error:
            ended.put(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: list(objective.options.folder.glob("*/output/processes")))
    (path,) = objective.options.folder.glob("*/output/processes")
    processes = json.loads(path.read_text())
    assert len(processes) == 3 and all(map(is_alive, processes))
    objective.cancel()
    thread.join()
    assert isinstance(ended.get(), KeyboardInterrupt)
    assert study.trials[0].user_attrs["interrupted"]
    assert not any(map(is_alive, processes))


# --- what it reads ---


def script(code: str, **more: Any) -> Callable[[Path], CommandObjective]:
    """An objective of a few lines of Python, with the parameter x."""

    def make(folder: Path) -> CommandObjective:
        words = [sys.executable, "-S", "-c", code, "{x}", "{folder}"]
        space = {"x": IntDistribution(1, 9)}
        given: dict[str, Any] = {"folder": folder, "grace": 0.2}
        return CommandObjective(words, space, "score", **(given | more))

    return make


def test_without_a_configuration_there_is_no_control_unless_it_is_said(tmp_path: Path) -> None:
    make = script("import sys; print({'score': int(sys.argv[1])})", direction="maximize")
    objective = make(tmp_path)
    assert objective.default_params is None
    assert objective.control.reasons == ("nothing says which value 'x' has by default",)
    study = optuna.create_study(direction="maximize")
    (trial,) = search(objective, {"x": 4}, study=study)
    assert trial.value == 4 and trial.intermediate_values == {1: 4.0}
    assert study.user_attrs["report_axis"] == "evaluation"
    given = script("", defaults={"x": 3})(tmp_path)
    assert given.default_params == {"x": 3}


def test_an_expression_finds_the_metric(tmp_path: Path) -> None:
    code = "import sys; [print('it', i, 'score', i * int(sys.argv[1])) for i in (1, 2)]"
    pattern = r"it (?P<step>\d+) score (?P<value>[\d.]+)"
    (trial,) = search(script(code, metric_regex=pattern)(tmp_path), {"x": 4})
    assert trial.value == 8 and trial.intermediate_values == {1: 4.0, 2: 8.0}
    (failed,) = search(script(code, metric_regex="loss=(.*)")(tmp_path / "b"), {"x": 4})
    assert "no line matched" in failed.user_attrs["failed_reason"]


@pytest.mark.parametrize(
    ("direction", "take", "value"),
    [("minimize", "last", 2.0), ("minimize", "best", 1.0), ("maximize", "best", 3.0)],
)
def test_which_value_counts(tmp_path: Path, direction: Any, take: str, value: float) -> None:
    code = "[print({'score': s, 'step': i}) for i, s in enumerate((3.0, 1.0, 2.0), 1)]"
    make = script(code, direction=direction, take=take)
    study = optuna.create_study(direction=direction)
    (trial,) = search(make(tmp_path), {"x": 1}, study=study)
    assert trial.value == value


def test_reports_keep_to_the_axis_of_the_study(tmp_path: Path) -> None:
    """A later trial that could tell more, or less, reports what can be compared, or nothing."""
    study = optuna.create_study()
    both = "print({'score': 1.0, 'step': 3, 'max_steps': 9})"
    for i, code in enumerate(["print({'score': 1.0, 'step': 3})", both, "print({'score': 1.0})"]):
        objective = script(code)(tmp_path)
        if i:  # another command is another study's: this is about the axis alone
            study.set_user_attr("lora_objective", objective.fingerprint)
            objective.options.folder.joinpath("search.txt").unlink()
        search(objective, {"x": 1}, study=study)
    assert study.user_attrs["report_axis"] == "step"
    assert [trial.intermediate_values for trial in study.trials] == [{3: 1.0}, {3: 1.0}, {}]
    assert [trial.value for trial in study.trials] == [1.0] * 3


def test_hyperband_is_told_that_steps_are_no_percentages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    optuna.logging.enable_propagation()
    study = optuna.create_study(pruner=optuna.pruners.HyperbandPruner(max_resource=100))
    (trial,) = search(script("print({'score': 1.0, 'step': 3})")(tmp_path), {"x": 1}, study=study)
    assert trial.user_attrs["problems"][0].startswith("reports are by step")
    assert "needs a max_resource" in caplog.text


def test_progress(make: Make) -> None:
    told: list[TrainingProgress] = []
    search(make({"progress": told.append}, seconds_a_step=0.3, max_steps=2), BEST)
    assert told[-1] == TrainingProgress(0, 1.0, told[-1].loss)
    assert told[-1].loss is not None and told[0].fraction == 0.5


# --- devices and the environment ---


def test_trials_at_once_have_devices_of_their_own(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; d = os.environ['CUDA_VISIBLE_DEVICES']; a = time.time();"
        " time.sleep(0.4); span = ';'.join(map(str, (d, a, time.time())));"
        " open(sys.argv[2] + '/d', 'w').write(span); print({'score': 1})"
    )
    objective = script(code, gpus=["0,1", "2,3"])(tmp_path)
    study = optuna.create_study()
    study.optimize(objective, n_trials=6, n_jobs=3)
    used = [path.read_text().split(";") for path in tmp_path.glob("trial-*/d")]
    assert len(used) == 6 and {devices for devices, *_ in used} == {"0,1", "2,3"}
    for devices in ("0,1", "2,3"):
        spans = sorted((float(a), float(b)) for d, a, b in used if d == devices)
        assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:], strict=False))


def test_the_environment_and_the_gpus_placeholder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEPT", "kept")
    code = "import os; print({'score': 1, **{k: os.environ[k] for k in ('KEPT', 'LR', 'DEV')}})"
    objective = CommandObjective(
        [sys.executable, "-S", "-c", code], {"x": IntDistribution(1, 9)}, "score",
        env={"LR": "{x}e-4", "DEV": "{gpus} of {trial}"}, gpus=["3"], folder=tmp_path,
    )  # fmt: skip
    (trial,) = search(objective, {"x": 4})
    log = (tmp_path / "trial-0000/log.txt").read_text()
    assert "'KEPT': 'kept', 'LR': '4e-4', 'DEV': '3 of 0'" in log and trial.value == 1


# --- studies ---


def test_a_study_is_of_one_command(make: Make, tmp_path: Path) -> None:
    study = optuna.create_study()
    make().check_study(study)
    make().check_study(study)
    make(lora_rank=16).check_study(study)  # it is searched
    for changed, message in (
        (make(max_steps=9), r"train.json: max_steps \(4, now 9\)"),
        (make({"take": "best"}), r"take \('last', now 'best'\)"),
        (make({"assign": {**ASSIGN, "max_steps": "5"}}), "--set max_steps"),
    ):
        with pytest.raises(InputError, match=f"another command or configuration.*{message}"):
            changed.check_study(study)
    with pytest.raises(InputError, match='create the study with direction="maximize"'):
        make({"direction": "maximize"}).check_study(study)
    assert study.user_attrs["command"].endswith("'{config}'")


def test_what_is_searched_may_change(make: Make, tmp_path: Path) -> None:
    study = optuna.create_study()
    make().check_study(study)
    given: dict[str, Any] = {
        "config": tmp_path / "train.json",
        "assign": ASSIGN,
        "folder": tmp_path / "runs",
    }
    fewer = {"learning_rate": SPACE["learning_rate"]}
    CommandObjective(COMMAND, fewer, "eval_loss", **given).check_study(study)
    more = SPACE | {"max_steps": IntDistribution(1, 9)}
    CommandObjective(COMMAND, more, "eval_loss", **given).check_study(study)


def test_a_folder_is_of_one_study(make: Make) -> None:
    make().check_study(optuna.create_study(study_name="a"))
    with pytest.raises(InputError, match=r"another search \(study a\): give another --folder"):
        make().check_study(optuna.create_study(study_name="b"))
    search(make(), BEST, study=optuna.create_study(study_name="a"))
    with pytest.raises(InputError, match="is there already: its study must have been deleted"):
        search(make(), BEST, study=optuna.create_study(study_name="a"))


def test_the_context_is_written_into_the_study(make: Make) -> None:
    study = optuna.create_study()
    make({"context": {"method": "lora", "steps": 300}}).check_study(study)
    assert study.user_attrs["llmbo:context"] == {"method": "lora", "steps": 300}
    with pytest.raises(InputError, match="context"):
        make({"context": {"methd": "lora"}})


def test_without_a_study(make: Make) -> None:
    """A FixedTrial has none."""
    assert make()(FixedTrial(BEST)) == pytest.approx(0.0)


def test_a_trial_whose_command_had_ended_when_the_search_was_killed(make: Make) -> None:
    objective = make()
    study = optuna.create_study()
    (first,) = search(objective, BEST, study=study)
    for attributes, runs in (({"retry_history": [0]}, 1), ({}, 2)):
        study.add_trial(
            optuna.create_trial(
                state=TrialState.WAITING, system_attrs={"fixed_params": BEST, **attributes}
            )
        )
        study.optimize(objective, n_trials=1)
        assert study.trials[-1].value == first.value
        assert study.trials[-1].intermediate_values == first.intermediate_values
        assert len(list(objective.options.folder.glob("trial-*/log.txt"))) == runs
    assert study.trials[1].user_attrs["folder"] == first.user_attrs["folder"]


def test_what_a_killed_trial_was_to_be_does_not_count_for_its_retry(make: Make) -> None:
    study = optuna.create_study()
    attributes = {
        "infeasible": True,
        "pruned_reason": "diverged",
        "log_end": "x",
        "problems": ["y"],
    }
    again = {"fixed_params": BEST, "retry_history": []}
    study.add_trial(
        optuna.create_trial(state=TrialState.WAITING, user_attrs=attributes, system_attrs=again)
    )
    study.optimize(make(), n_trials=1)
    (trial,) = study.trials
    assert outcome_of(trial) == "complete"
    assert not any(trial.user_attrs[name] for name in attributes)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"direction": "up"}, "direction must be one of minimize, maximize"),
        ({"take": "first"}, "take must be one of last, best"),
        ({"grace": -1}, "grace must be seconds"),
        ({"trial_timeout": 0}, "trial_timeout=0"),
        ({"metric_regex": "("}, "is no regular expression"),
        ({"metric_regex": "loss"}, "has no group for the value"),
        ({"gpus": "0,1"}, "gpus must be a list"),
        ({"gpus": ["0"], "env": {"CUDA_VISIBLE_DEVICES": "1"}}, "both set CUDA_VISIBLE_DEVICES"),
        ({"stop_command": "docker 'stop"}, "stop_command .* cannot be read"),
    ],
)
def test_mistakes_in_the_arguments(make: Make, more: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(more)


def test_mistakes_in_command_and_space(tmp_path: Path) -> None:
    for command, space, message in (
        ("", SPACE, "the command is empty"),
        ("run 'x", SPACE, "cannot be read"),
        ("run {x}", [1], "space must be the path of a TOML file or a dict"),
        ("run {x}", {}, "no parameters"),
        ("run {x}", tmp_path / "none.toml", "cannot be read"),
    ):
        with pytest.raises(InputError, match=message):
            CommandObjective(command, space, "loss")  # type: ignore[arg-type]


def test_a_progress_function_that_fails_is_noted(make: Make) -> None:
    def fail(progress: TrainingProgress) -> None:
        raise RuntimeError("cannot show it")

    (trial,) = search(make({"progress": fail}, seconds_a_step=0.2), BEST)
    assert trial.value == pytest.approx(0.0)
    (problem,) = trial.user_attrs["problems"]
    assert problem == "The progress function failed: RuntimeError: cannot show it"
