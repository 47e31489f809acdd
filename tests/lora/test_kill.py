"""`optuna-llmbo tune`, killed at random moments."""

from __future__ import annotations

from collections import Counter
import contextlib
import json
import multiprocessing
from pathlib import Path
import random
import signal
import time
from typing import Any

import optuna
from optuna.trial import TrialState
import pytest

from optuna_llmbo.cli.studies import MAX_RETRIES
from tests.lora.conftest import rows


N_TRIALS, N_KILLS = 24, 10
HEARTBEAT = 1


def tune(arguments: list[str]) -> None:
    """In a process of its own."""
    import torch

    from optuna_llmbo import cli

    torch.set_num_threads(1)
    cli.app(arguments)


@pytest.mark.slow
def test_killed_ten_times(tmp_path: Path, tiny_llm: Path) -> None:
    data, url = tmp_path / "train.jsonl", f"sqlite:///{tmp_path}/study.db"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows(60)))
    options = {
        "model": tiny_llm, "train": data, "proxy": 0.9, "storage": url, "trials": N_TRIALS,
        "epochs": 4, "folder": tmp_path / "trials", "heartbeat": HEARTBEAT, "device": "cpu",
    }  # fmt: skip
    arguments = [
        "tune",
        *(str(x) for name, value in options.items() for x in (f"--{name}", value)),
    ]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["optuna_llmbo.cli", "optuna_llmbo.sampler", "peft", "torch"])
    rng, n_before = random.Random(0), 0

    def study() -> optuna.Study:
        return optuna.load_study(study_name="lora", storage=url)

    def begin() -> Any:
        process = context.Process(target=tune, args=(arguments,))
        process.start()
        return process

    def is_in_a_trial() -> bool:
        with contextlib.suppress(Exception):  # there is no study yet, or it is being made
            states = [trial.state for trial in study().trials[n_before:]]
            return TrialState.RUNNING in states
        return False

    for _ in range(N_KILLS):
        with contextlib.suppress(Exception):
            n_before = len(study().trials)
        process = begin()
        while process.is_alive() and not is_in_a_trial():
            time.sleep(0.05)
        process.join(rng.uniform(0.0, 1.5))
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)

    for _ in range(2):  # the second time what the last kill has left is taken up
        process = begin()
        process.join()
        assert process.exitcode == 0
        time.sleep(3 * HEARTBEAT)

    trials = study().trials
    states = Counter(trial.state for trial in trials)
    finished = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(finished) >= N_TRIALS and states[TrialState.RUNNING] == 0
    assert [trial.number for trial in trials] == list(range(len(trials)))
    params = [tuple(sorted(trial.params.items())) for trial in finished]
    assert len(set(params)) == len(params)
    retried = {n for t in trials for n in t.system_attrs.get("retry_history", ())}
    failed = {trial.number for trial in trials if trial.state == TrialState.FAIL}
    assert failed and failed >= retried
    given_up = [trial for trial in trials if trial.number in failed - retried]
    assert all(len(trial.system_attrs["retry_history"]) == MAX_RETRIES for trial in given_up)
    assert all(trial.user_attrs["steps"] > 0 for trial in finished)
    assert sum(bool(trial.user_attrs["is_default"]) for trial in finished) == 1
    kept = [path.parent.name for path in (tmp_path / "trials").glob("trial-*/adapter")]
    assert kept == [f"trial-{study().best_trial.number}"]
