"""Workers that share a study's places: never too many trials, and one control."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
import threading
import time
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
import pytest

from optuna_llmbo.cli.storages import open_storage
from optuna_llmbo.study import compat
from optuna_llmbo.study import places
from optuna_llmbo.study.places import begin_trial
from optuna_llmbo.study.places import enqueue_control


MakeStorage = Callable[[], BaseStorage]

CONTROL = {"x": 0.5, "y": 2}
N_WORKERS, N_TRIALS = 4, 12


def open_study(storage: BaseStorage, name: str, seed: int = 0) -> optuna.Study:
    return optuna.create_study(
        study_name=name,
        storage=storage,
        load_if_exists=True,
        sampler=optuna.samplers.RandomSampler(seed=seed),
    )


def finish(study: optuna.Study, trial: optuna.Trial) -> None:
    trial.suggest_float("x", 0, 1)
    trial.suggest_int("y", 1, 3)
    study.tell(trial, 1.0)


def states_of(study: optuna.Study) -> Counter[TrialState]:
    return Counter(trial.state for trial in study.get_trials())


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def make_storage(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStorage:
    """Opens a storage as `tune` does; another call opens the same one as another worker would."""
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql").url
    else:
        url = str(tmp_path / {"sqlite": "study.db", "journal": "study.log"}[request.param])
    return lambda: open_storage(url, 30)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_PAUSE", 0.02)


def test_workers_that_begin_at_once(make_storage: MakeStorage, study_name: str) -> None:
    """A trial takes no time here, so that the last place is contended for as never in a search."""
    study = open_study(make_storage(), study_name)
    together = threading.Barrier(N_WORKERS)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            own = open_study(make_storage(), study_name, number)
            together.wait()
            enqueue_control(own, CONTROL)
            while (trial := begin_trial(own, N_TRIALS, control=CONTROL)) is not None:
                finish(own, trial)
        except BaseException as error:
            errors.append(error)
            raise

    workers = [threading.Thread(target=work, args=(i,)) for i in range(N_WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not errors
    states = states_of(study)
    assert states[TrialState.COMPLETE] == N_TRIALS
    assert states.keys() <= {TrialState.COMPLETE, TrialState.WAITING}
    assert sum(trial.params == CONTROL for trial in study.trials) == 1


def test_the_last_place_is_wanted_by_two(
    make_storage: MakeStorage, study_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker begins its trial between this one's look and its own."""
    study, other = (open_study(make_storage(), study_name) for _ in range(2))
    ask = compat.ask
    others: list[optuna.Trial] = []

    def ask_late(asking: optuna.Study) -> optuna.Trial:
        if not others:
            others.append(ask(other))
        else:
            finish(other, others[0])  # while this worker waits, the other one is done
        return ask(asking)

    monkeypatch.setattr(compat, "ask", ask_late)
    finish(study, ask(study))
    assert begin_trial(study, 2) is None or others[0].number == 1
    states = states_of(study)
    assert states[TrialState.COMPLETE] + states[TrialState.RUNNING] == 2
    assert states[TrialState.WAITING] == 1  # it was begun, and put back
    monkeypatch.setattr(compat, "ask", ask)
    if states[TrialState.RUNNING]:
        finish(other, others[0])
    trial = begin_trial(study, 3)
    assert trial is not None and trial.number == 2  # the one that waits, and no new one
    finish(study, trial)
    assert states_of(study) == {TrialState.COMPLETE: 3}


def test_of_two_controls_the_first_runs(storage: BaseStorage, study_name: str) -> None:
    study = open_study(storage, study_name)
    for _ in range(2):
        study.enqueue_trial(CONTROL)  # as two workers do that look at the same moment
    for _ in range(3):
        trial = begin_trial(study, 3, control=CONTROL)
        assert trial is not None
        finish(study, trial)
    assert [trial.params == CONTROL for trial in study.trials] == [True, False, False]
    assert begin_trial(study, 3, control=CONTROL) is None


def test_a_control_that_failed_is_tried_again(storage: BaseStorage, study_name: str) -> None:
    study = open_study(storage, study_name)
    enqueue_control(study, CONTROL)
    enqueue_control(study, CONTROL)
    assert len(study.trials) == 1
    trial = begin_trial(study, 2, control=CONTROL)
    assert trial is not None
    study.tell(trial, state=TrialState.FAIL)
    enqueue_control(study, CONTROL)
    trial = begin_trial(study, 2, control=CONTROL)
    assert trial is not None
    finish(study, trial)
    assert study.trials[-1].params == CONTROL
    enqueue_control(study, CONTROL)
    assert len(study.trials) == 2


def test_which_trials_have_a_place() -> None:
    study = optuna.create_study()
    ends: list[tuple[TrialState, dict[str, Any]]] = [
        (TrialState.COMPLETE, {}),
        (TrialState.PRUNED, {}),
        (TrialState.PRUNED, {"infeasible": True}),
        (TrialState.FAIL, {}),
        (TrialState.FAIL, {"interrupted": True}),
        (TrialState.RUNNING, {}),
    ]
    for state, attributes in ends:
        value = 1.0 if state is TrialState.COMPLETE else None
        study.add_trial(optuna.trial.create_trial(state=state, value=value, user_attrs=attributes))
    assert begin_trial(study, 4) is None
    assert begin_trial(study, 5) is not None
    assert begin_trial(study, 5) is None


def test_a_worker_of_a_journal_that_has_died(
    tmp_path: Path, study_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trial is retried, as in a database, and takes no place for ever."""

    def journal() -> compat.JournalWithHeartbeat:
        return compat.JournalWithHeartbeat(
            JournalFileBackend(str(tmp_path / "study.log")), 30, max_retry=1
        )

    began, later = time.time(), [0.0]
    monkeypatch.setattr(compat.time, "time", lambda: began + later[0])  # type: ignore[attr-defined]
    study = open_study(journal(), study_name)
    dead = begin_trial(study, 1)
    assert dead is not None
    x = dead.suggest_float("x", 0, 1)
    assert begin_trial(study, 1) is None
    later[0] = 100.0
    compat.record_heartbeat(study, compat.now(dead))  # alive
    later[0] = 155.0
    assert begin_trial(open_study(journal(), study_name), 1) is None
    later[0] = 165.0
    other = open_study(journal(), study_name)
    retried = begin_trial(other, 1)
    assert retried is not None and retried.number == 1
    assert begin_trial(other, 1) is None  # it is not taken for dead itself
    assert retried.suggest_float("x", 0, 1) == x
    assert study.trials[0].state is TrialState.FAIL
    assert compat.retry_history(retried) == [0]


def test_another_programs_trials_in_a_journal_are_left_alone(tmp_path: Path) -> None:
    backend = JournalFileBackend(str(tmp_path / "study.log"))
    theirs = optuna.create_study(study_name="s", storage=optuna.storages.JournalStorage(backend))
    theirs.ask().suggest_float("x", 0, 1)
    ours = open_study(compat.JournalWithHeartbeat(backend, 0, max_retry=1), "s")
    compat.retry_stale_trials(ours)
    assert states_of(ours) == {TrialState.RUNNING: 1}


@pytest.mark.long
@pytest.mark.parametrize("named", ["study.db", "study.log"])
def test_a_worker_that_dies_before_the_first_heartbeat_gives_its_place_back(
    named: str, tmp_path: Path, study_name: str
) -> None:
    """What it leaves is a running trial like any other, but for the heartbeat."""
    study = open_study(open_storage(str(tmp_path / named), 1), study_name)
    study._storage.create_new_trial(study._study_id)
    alive = study.ask()  # somebody's who sends none either, but has begun
    alive.suggest_float("x", 0, 1)
    deadline = time.monotonic() + 30
    while (trial := begin_trial(study, 2)) is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert trial is not None and compat.retry_history(trial) == [0]
    states = [one.state for one in study.get_trials()]
    assert states == [TrialState.FAIL, TrialState.RUNNING, TrialState.RUNNING]


@pytest.mark.long
@pytest.mark.parametrize("named", ["study.db", "study.log"])
def test_a_retry_whose_worker_dies_before_its_first_heartbeat_gives_its_place_back(
    named: str, tmp_path: Path, study_name: str
) -> None:
    """It has parameters all the same: those of the trial that it retries."""
    study = open_study(open_storage(str(tmp_path / named), 1), study_name)
    first = begin_trial(study, 1)
    assert first is not None
    x = first.suggest_float("x", 0, 1)
    deadline = time.monotonic() + 60
    while len(study.trials) < 2 and time.monotonic() < deadline:
        compat.retry_stale_trials(study)
        time.sleep(0.2)
    dead = study.ask()
    assert dead.number == 1 and dead.params == {"x": x}
    while (trial := begin_trial(study, 1)) is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert trial is not None and compat.retry_history(trial) == [0, 1]
