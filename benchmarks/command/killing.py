"""A search that is killed again and again, and what is left of it each time."""

from __future__ import annotations

from collections.abc import Callable
import json
import math
import os
from pathlib import Path
import random
import signal
import subprocess
import time
from typing import Any

import optuna
from optuna.trial import TrialState

from benchmarks.command.tool import STUDY
from benchmarks.command.tool import Tool


LONGEST = 40.0
"""Most seconds from when a kill is due until it comes."""
_PATIENCE = 30.0
"""Seconds after which a process counts as left running."""
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def search(tool: Tool, n_trials: int, n_kills: int) -> None:
    """Run the search until it has its trials, killed with SIGKILL at random moments.

    Only the search's own process is killed. Before every second kill one more trial has to finish,
    so that kills meet all of a trial: the start, the sampler, the training. What is found is added
    to kills.json, so that this function can be interrupted too.
    """
    kills = kept_kills(tool)
    while len(kills) < n_kills:
        record = _kill(tool, n_trials, random.Random(len(kills)), 1 - len(kills) % 2)
        if record is None:
            raise RuntimeError("the search ended before it was killed as often: more --trials")
        kills.append(record)
        _path(tool).write_text(json.dumps(kills, indent=1) + "\n")
    while n_finished(tool) < n_trials:
        _start(tool, n_trials).wait()


def kept_kills(tool: Tool) -> list[dict[str, Any]]:
    """The kills so far."""
    path = _path(tool)
    return json.loads(path.read_text()) if path.exists() else []


def trials(tool: Tool) -> list[optuna.trial.FrozenTrial]:
    """All trials of the study; none if there is no study yet."""
    try:
        study = optuna.load_study(study_name=STUDY, storage=tool.storage)
    except KeyError:
        return []
    return study.get_trials(deepcopy=False)


def n_finished(tool: Tool) -> int:
    """How many trials have a result."""
    return len(_results(tool))


def _results(tool: Tool) -> dict[str, Any]:
    """What finished trials say, by number; plain values."""
    return {
        str(trial.number): [trial.state.name, trial.value, trial.params]
        for trial in trials(tool)
        if trial.state in _FINISHED
    }


def _kill(tool: Tool, n_trials: int, rng: random.Random, n_more: int) -> dict[str, Any] | None:
    """Start the search, kill it, and see what is left; None if it ends by itself."""
    n_before = n_finished(tool)
    process = _start(tool, n_trials)
    _wait(lambda: process.poll() is not None or n_finished(tool) >= n_before + n_more)
    delay = rng.uniform(1.0, LONGEST)
    _wait(lambda: process.poll() is not None, delay)
    if process.poll() is not None:
        return None
    running = [one for one in tool.running() if one != process.pid]
    before = _results(tool)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    killed = time.monotonic()
    while tool.running() and time.monotonic() - killed < _PATIENCE:
        time.sleep(0.02)
    seconds = time.monotonic() - killed
    after = _results(tool)
    return {
        "delay": round(delay, 1),
        "finished_before": n_before,
        "finished": len(after),
        "processes": len(running),
        "left": len(tool.running()),
        "seconds_until_gone": round(seconds, 2),
        "lost": sorted(set(before) - set(after)),
        "changed": sorted(n for n in before if n in after and before[n] != after[n]),
        "running": [t.number for t in trials(tool) if t.state is TrialState.RUNNING],
    }


def _start(tool: Tool, n_trials: int) -> subprocess.Popen[bytes]:
    with (tool.work / "search.log").open("ab") as log:
        return subprocess.Popen(
            tool.search(n_trials), cwd=tool.work, env=tool.environment, stdout=log, stderr=log
        )


def _wait(is_over: Callable[[], bool], seconds: float = math.inf) -> None:
    until = time.monotonic() + seconds
    while not is_over() and time.monotonic() < until:
        time.sleep(min(0.5, max(0.0, until - time.monotonic())))


def _path(tool: Tool) -> Path:
    return tool.work / "kills.json"
