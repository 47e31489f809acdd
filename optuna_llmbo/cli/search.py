"""A search: trials of any objective until the study has them, or time is over."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import math
import time
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import typer

from optuna_llmbo.cli import events
from optuna_llmbo.cli.budget import Budget
from optuna_llmbo.cli.budget import Estimate
from optuna_llmbo.cli.live import LiveView
from optuna_llmbo.cli.terminal import Output
from optuna_llmbo.cli.terminal import warn
from optuna_llmbo.errors import warn_once
from optuna_llmbo.study import compat
from optuna_llmbo.study.outcome import outcome_of
from optuna_llmbo.study.outcome import TrialCrashed
from optuna_llmbo.study.places import begin_trial
from optuna_llmbo.study.places import enqueue_control
from optuna_llmbo.study.progress import progress_of
from optuna_llmbo.study.progress import seconds_of
from optuna_llmbo.study.searched import Searched
from optuna_llmbo.study.time_limits import SearchTimedOut
from optuna_llmbo.study.trial_attributes import INTERRUPTED
from optuna_llmbo.study.trial_attributes import LOG_END
from optuna_llmbo.study.trial_attributes import TRACEBACK
from optuna_llmbo.study.trial_facts import trial_facts


Callback = Callable[[optuna.Study, FrozenTrial], None]
Begin = Callable[[], optuna.Trial | None]
"""Begins a trial, or returns None if there is to be no further one."""
Run = Callable[[optuna.Study, Begin, Sequence[Callback]], None]
"""Runs the trials that are begun, and calls the callbacks after each."""

_MAX_FAILURES = 3
"""Consecutive failed trials that end the search: hyperparameters are unlikely to be the cause."""


class Search:
    """A search that goes on until the study has its trials, or time is over.

    Args:
        study: the study.
        objective: what to search; its `progress` and `limits.ends_at` are set.
        output: where to say and show what happens.
        budget: how many trials, and how much time.
        next_sampler: returns the sampler of the trial with a number.
        run: runs the trials; None: `run_trials`, one after the other.
        callbacks: called after every trial, such as those of trackers. An error in one is a
            warning.
        step: how the step of a report is written.
    """

    def __init__(
        self,
        study: optuna.Study,
        objective: Searched,
        output: Output,
        budget: Budget,
        next_sampler: Callable[[int], optuna.samplers.BaseSampler],
        *,
        run: Run | None = None,
        callbacks: Sequence[Callback] = (),
        step: str = "{}%",
    ) -> None:
        self._study = study
        self._objective = objective
        self._output = output
        self._budget = budget
        self._next_sampler = next_sampler
        self._run = run or self._one_by_one
        self._callbacks = callbacks
        self._step = step
        self._control = objective.default_params
        self._deadline: float | None = None
        self._is_late = False

    def run(self) -> str:
        """Run the missing trials.

        Returns:
            How it ended: "complete", "timeout", "elsewhere" (other workers run the missing
            trials), or "interrupted" by the user.
        """
        study, output, budget = self._study, self._output, self._budget
        goals, limits = self._objective.goals, self._objective.limits
        n_trials, n_there = budget.n_trials, progress_of(study).n_finished
        output.event("start", events.start(study, self._objective, budget))
        if n_there >= n_trials:
            output.say(f"The study has its {n_trials} trials; a higher --trials goes on.")
            return "complete"
        if n_there:
            output.say(f"Resuming: {n_there} of {n_trials} trials are there.")
        aims = " and to ".join(f"{goal.direction} {goal.heading}" for goal in goals)
        output.say(f"The search is to {aims}.")
        output.say(budget.known(n_there, limits.trial_seconds))
        if self._control is not None:
            enqueue_control(study, self._control)
        if budget.seconds is not None:
            self._deadline = time.monotonic() + budget.seconds
        limits.ends_at = self._deadline if budget.stops else None

        def tell(study: optuna.Study, trial: FrozenTrial) -> None:
            output.event("trial", events.trial(study, trial, goals, n_trials))

        cost = _Cost(budget, n_there, output)
        with LiveView(
            output.progress, study, goals, budget, self._deadline, limits, step=self._step
        ) as view:
            self._objective.progress = view.on_step
            try:
                callbacks: list[Callback] = [view.on_trial, tell, cost, *self._callbacks]
                self._run(study, self._begin, [_guarded(one) for one in callbacks])
            except KeyboardInterrupt:
                return "interrupted"
        if progress_of(study).n_finished >= n_trials:
            return "complete"
        return "timeout" if self._is_late else "elsewhere"

    def _one_by_one(
        self, study: optuna.Study, begin: Begin, callbacks: Sequence[Callback]
    ) -> None:
        """Run trials; an error fails its trial, and several in a row end the search."""
        run_trials(study, self._objective, begin, [*callbacks, Watch()])

    def _begin(self) -> optuna.Trial | None:
        """Begin a trial, unless the study has its trials or time is over."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._is_late = True
            return None
        trial = begin_trial(self._study, self._budget.n_trials, control=self._control)
        if trial is not None:
            self._study.sampler = self._next_sampler(trial.number)
        return trial


class _Cost:
    """A callback that says what a trial costs, once the first one is complete."""

    def __init__(self, budget: Budget, n_there: int, output: Output) -> None:
        self._budget = budget
        self._n_there = n_there
        self._output = output
        self._is_said = False

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        if self._is_said or outcome_of(trial) != "complete":
            return
        self._is_said = True
        estimate = Estimate(self._budget, seconds_of(trial), self._n_there)
        self._output.say(str(estimate))
        self._output.event("estimate", events.estimate(estimate))


class Watch:
    """A callback that shows why trials failed, and ends the search after several in a row."""

    def __init__(self) -> None:
        self._n_failed = 0

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        if outcome_of(trial) != "failed":
            self._n_failed = 0
            return
        self._n_failed += 1
        why = trial.user_attrs.get(TRACEBACK) or trial_facts(trial).reason
        if log := trial.user_attrs.get(LOG_END):
            why = f"{why}\nThe end of its output:\n{log}"
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
    begin: Begin,
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
        ended = run_trial(study, objective, trial)
        for callback in callbacks:
            callback(study, ended)


def run_trial(
    study: optuna.Study, objective: Callable[[optuna.Trial], Any], trial: optuna.Trial
) -> FrozenTrial:
    """Run a trial that has begun, and tell the study how it ended.

    A trial that crashes, or whose time is over as that of the search is, fails.

    Raises:
        KeyboardInterrupt: passed on, as any error is that is not the trial's; the trial fails.
    """
    values: Any = None
    state = TrialState.FAIL
    try:
        with compat.heartbeat(trial):
            values = objective(trial)
        state = TrialState.FAIL if _has_nan(values) else TrialState.COMPLETE
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except (TrialCrashed, SearchTimedOut):
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
