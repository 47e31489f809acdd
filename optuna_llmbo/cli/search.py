"""The search of `tune`: trials until the study has them, or time is over."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import math
import sys
import time
from typing import Any
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import typer

from optuna_llmbo.cli import events
from optuna_llmbo.cli.live import LiveView
from optuna_llmbo.cli.terminal import Output
from optuna_llmbo.cli.terminal import warn
from optuna_llmbo.errors import warn_once
from optuna_llmbo.lora.metrics import title_of
from optuna_llmbo.lora.packed.parallel import optimize_packed
from optuna_llmbo.lora.run import TrialCrashed
from optuna_llmbo.study import compat
from optuna_llmbo.study.outcome import outcome_of
from optuna_llmbo.study.places import begin_trial
from optuna_llmbo.study.places import enqueue_control
from optuna_llmbo.study.progress import goals_of
from optuna_llmbo.study.progress import progress_of
from optuna_llmbo.study.trial_attributes import INTERRUPTED
from optuna_llmbo.study.trial_attributes import TRACEBACK
from optuna_llmbo.study.trial_facts import trial_facts


if TYPE_CHECKING:
    from optuna_llmbo.lora.objective import LoRAObjective


Callback = Callable[[optuna.Study, FrozenTrial], None]

_MAX_FAILURES = 3
"""Consecutive failed trials that end the search: hyperparameters are unlikely to be the cause."""


class Search:
    """A search that goes on until the study has its trials, or time is over."""

    def __init__(
        self,
        study: optuna.Study,
        objective: LoRAObjective,
        output: Output,
        n_trials: int,
        parallel: int,
        seconds: float | None,
        next_sampler: Callable[[int], optuna.samplers.BaseSampler],
    ) -> None:
        self._study = study
        self._objective = objective
        self._output = output
        self._n_trials = n_trials
        self._parallel = parallel
        self._next_sampler = next_sampler
        self._control = objective.default_params
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._is_late = False

    def run(self) -> str:
        """Run the missing trials.

        Returns:
            How it ended: "complete", "timeout", "elsewhere" (other workers run the missing
            trials), or "interrupted" by the user.
        """
        study, output, n_trials = self._study, self._output, self._n_trials
        goals = goals_of(self._objective.prepare().targets)
        n_finished = progress_of(study).n_finished
        output.event("start", events.start(study, goals, self._objective.base_loss, n_trials))
        if n_finished >= n_trials:
            output.say(f"The study has its {n_trials} trials; a higher --trials goes on.")
            return "complete"
        if n_finished:
            output.say(f"Resuming: {n_finished} of {n_trials} trials are there.")
        aims = " and to ".join(f"{goal.direction} {title_of(goal.name)}" for goal in goals)
        output.say(f"The search is to {aims}.")
        enqueue_control(study, self._control)

        def tell(study: optuna.Study, trial: FrozenTrial) -> None:
            output.event("trial", events.trial(study, trial, goals, n_trials))

        with LiveView(output.progress, study, goals, n_trials, self._deadline) as view:
            self._objective.progress = view.on_step
            try:
                self._optimize([_guarded(view.on_trial), _guarded(tell)])
            except KeyboardInterrupt:
                return "interrupted"
        if progress_of(study).n_finished >= n_trials:
            return "complete"
        return "timeout" if self._is_late else "elsewhere"

    def _optimize(self, callbacks: Sequence[Callback]) -> None:
        """Run trials; an error fails its trial, and several in a row end the search."""
        study, objective = self._study, self._objective
        if self._parallel > 1:
            optimize_packed(
                study, objective, sys.maxsize, self._parallel, callbacks, begin=self._begin
            )
        else:
            run_trials(study, objective, self._begin, [*callbacks, _Watch()])

    def _begin(self) -> optuna.Trial | None:
        """Begin a trial, unless the study has its trials or time is over."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._is_late = True
            return None
        trial = begin_trial(self._study, self._n_trials, control=self._control)
        if trial is not None:
            self._study.sampler = self._next_sampler(trial.number)
        return trial


class _Watch:
    """A callback that shows why trials failed, and ends the search after several in a row."""

    def __init__(self) -> None:
        self._n_failed = 0

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        if outcome_of(trial) != "failed":
            self._n_failed = 0
            return
        self._n_failed += 1
        why = trial.user_attrs.get(TRACEBACK) or trial_facts(trial).reason
        warn(f"trial #{trial.number} failed:\n{why}")
        if self._n_failed == _MAX_FAILURES:
            warn(f"error: {_MAX_FAILURES} trials failed one after another.")
            raise typer.Exit(1)


def _guarded(callback: Callback) -> Callback:
    """A callback that only shows: an error in it is a warning, as the trial has its result."""

    def call(study: optuna.Study, trial: FrozenTrial) -> None:
        try:
            callback(study, trial)
        except BrokenPipeError:  # nobody reads the output any more
            raise
        except Exception as error:
            warn_once(f"a trial cannot be shown: {type(error).__name__}: {error}")

    return call


def run_trials(
    study: optuna.Study,
    objective: Callable[[optuna.Trial], Any],
    begin: Callable[[], optuna.Trial | None],
    callbacks: Sequence[Callback] = (),
) -> None:
    """Run trials until there is none to begin; one that crashes fails, and the next one begins.

    Args:
        study: the study.
        objective: returns a trial's value or values; nan fails the trial.
        begin: begins a trial, or returns None; it decides how many there are.
        callbacks: called after every trial; they end the run by raising.
    """
    while (trial := begin()) is not None:
        ended = _run(study, objective, trial)
        for callback in callbacks:
            callback(study, ended)


def _run(
    study: optuna.Study, objective: Callable[[optuna.Trial], Any], trial: optuna.Trial
) -> FrozenTrial:
    values: Any = None
    state = TrialState.FAIL
    try:
        with compat.heartbeat(trial):
            values = objective(trial)
        state = TrialState.FAIL if _has_nan(values) else TrialState.COMPLETE
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except TrialCrashed:
        pass
    except KeyboardInterrupt:
        trial.set_user_attr(INTERRUPTED, True)
        _tell(study, trial, None, TrialState.FAIL)
        raise
    except compat.UpdateFinishedTrialError:
        if not compat.now(trial).state.is_finished():
            raise
    except BaseException:
        _tell(study, trial, None, TrialState.FAIL)
        raise
    return _tell(study, trial, values if state is TrialState.COMPLETE else None, state)


def _tell(study: optuna.Study, trial: optuna.Trial, values: Any, state: TrialState) -> FrozenTrial:
    """Tell the study how a trial ended, unless another worker has given it up meanwhile."""
    there = compat.now(trial)
    if there.state.is_finished():
        warn_once(
            f"trial {trial.number} was given up by another worker while it ran here, as it had "
            "no heartbeat for a while; its result is not used. Choose a longer --heartbeat."
        )
        return there
    return study.tell(trial, values, state)


def _has_nan(values: Any) -> bool:
    several = values if isinstance(values, (tuple, list)) else [values]
    return any(math.isnan(value) for value in several)
