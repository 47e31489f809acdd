"""Studies with the sampler on every storage."""

from __future__ import annotations

from collections import Counter
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import create_trial
from optuna.trial import TrialState
import pytest

from optuna_llmbo import LLMBOSampler
from tests.storages.conftest import MakeStorage


pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.long]

N_STARTUP = 3
N_TRIALS = 6

SPACE: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-6, 1e-2, log=True),
    "share": FloatDistribution(0.0, 1.0, step=0.05),
    "width": IntDistribution(1, 256, log=True),
    "kind": CategoricalDistribution(["a", None, 3, True]),
}


def objective(trial: optuna.Trial) -> float:
    rate = trial.suggest_float("rate", 1e-6, 1e-2, log=True)
    share = trial.suggest_float("share", 0.0, 1.0, step=0.05)
    width = trial.suggest_int("width", 1, 256, log=True)
    kind = trial.suggest_categorical("kind", ["a", None, 3, True])
    return 100 * rate + (share - 0.3) ** 2 + abs(width - 16) / 256 + (kind != "a")


def sampler(seed: int = 0) -> LLMBOSampler:
    return LLMBOSampler(kernel="numeric", n_startup_trials=N_STARTUP, seed=seed)


def open_study(storage: BaseStorage, name: str) -> optuna.Study:
    return optuna.create_study(
        storage=storage, study_name=name, load_if_exists=True, sampler=sampler()
    )


def params_of(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials]


@pytest.fixture(scope="module")
def expected(one_thread: None) -> list[dict[str, Any]]:
    """What the sampler chooses in memory, undisturbed."""
    study = optuna.create_study(sampler=sampler())
    study.optimize(objective, n_trials=N_TRIALS)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    return params_of(study)


def test_same_trials_on_every_storage(
    storage: BaseStorage, study_name: str, expected: list[dict[str, Any]]
) -> None:
    study = open_study(storage, study_name)
    study.optimize(objective, n_trials=N_TRIALS)
    assert params_of(study) == expected


def test_resumed_study_goes_on_where_it_was(
    make_storage: MakeStorage, study_name: str, expected: list[dict[str, Any]]
) -> None:
    for n_trials in (1, 3, N_TRIALS - 4):  # what a process has is a sampler and a connection
        study = open_study(make_storage(), study_name)
        study.optimize(objective, n_trials=n_trials)
    assert params_of(study) == expected


def test_ask_and_tell_by_different_processes(
    make_storage: MakeStorage, study_name: str, expected: list[dict[str, Any]]
) -> None:
    for _ in range(N_TRIALS):
        trial = open_study(make_storage(), study_name).ask(SPACE)
        value = objective(optuna.trial.FixedTrial(trial.params))  # type: ignore[arg-type]
        study = open_study(make_storage(), study_name)
        study.tell(trial.number, value)
    assert params_of(study) == expected


def test_threads(storage: BaseStorage, study_name: str) -> None:
    study = open_study(storage, study_name)
    study.optimize(objective, n_trials=N_TRIALS, n_jobs=2)
    assert [trial.number for trial in study.trials] == list(range(N_TRIALS))
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    assert len({tuple(params.values()) for params in params_of(study)}) == N_TRIALS


def test_enqueued_and_added_trials(storage: BaseStorage, study_name: str) -> None:
    """They come as they are, and inform the sampler as its own trials do."""
    best = {"rate": 1e-5, "share": 0.3, "width": 16, "kind": "a"}
    study = open_study(storage, study_name)
    study.enqueue_trial(best)
    study.enqueue_trial({"width": 20})
    for params, value in [(best | {"rate": 1e-3}, 0.1), (best | {"width": 100}, 0.33)]:
        study.add_trial(create_trial(params=params, distributions=SPACE, value=value))
    study.optimize(objective, n_trials=4)
    asked = [trial for trial in study.trials if trial.number not in (2, 3)]
    assert asked[0].params == best
    assert asked[1].params["width"] == 20
    assert not [trial for trial in study.trials if trial.state != TrialState.COMPLETE]
    assert len({tuple(params.values()) for params in params_of(study)}) == 6


def test_pruned_and_failed_trials(storage: BaseStorage, study_name: str) -> None:
    """The study goes on, and every trial ends in its state."""

    def troubled(trial: optuna.Trial) -> float:
        value = objective(trial)
        trial.report(value, step=1)
        if trial.number % 3 == 1:
            raise optuna.TrialPruned
        if trial.number % 3 == 2:
            raise RuntimeError("out of memory")
        return value

    study = open_study(storage, study_name)
    study.optimize(troubled, n_trials=N_TRIALS, catch=RuntimeError)
    states = Counter(trial.state for trial in study.trials)
    assert states == {TrialState.COMPLETE: 2, TrialState.PRUNED: 2, TrialState.FAIL: 2}
    assert len({tuple(params.values()) for params in params_of(study)}) == N_TRIALS
