"""One trial: its command is run, its metric reported, and its end recorded."""

from __future__ import annotations

from collections.abc import Mapping
import json
import math
import os
from pathlib import Path
import shlex
import threading
import time
from typing import Any

import optuna
from optuna.trial import BaseTrial

from optuna_llmbo.command import folders
from optuna_llmbo.command.ending import Ending
from optuna_llmbo.command.ending import ending_of
from optuna_llmbo.command.ending import log_end
from optuna_llmbo.command.metrics import Metrics
from optuna_llmbo.command.options import CommandOptions
from optuna_llmbo.command.plan import Call
from optuna_llmbo.command.process import Process
from optuna_llmbo.errors import did_you_mean
from optuna_llmbo.errors import warn_once
from optuna_llmbo.study.outcome import TrialCrashed
from optuna_llmbo.study.report_axis import Axis
from optuna_llmbo.study.report_axis import axis_of
from optuna_llmbo.study.report_axis import said
from optuna_llmbo.study.time_limits import TimeLimits
from optuna_llmbo.study.training_progress import TrainingProgress
from optuna_llmbo.study.trial_attributes import EXIT_CODE
from optuna_llmbo.study.trial_attributes import FAILED_REASON
from optuna_llmbo.study.trial_attributes import INFEASIBLE
from optuna_llmbo.study.trial_attributes import INTERRUPTED
from optuna_llmbo.study.trial_attributes import IS_DEFAULT
from optuna_llmbo.study.trial_attributes import LOG_END
from optuna_llmbo.study.trial_attributes import PROBLEMS
from optuna_llmbo.study.trial_attributes import PRUNED_REASON
from optuna_llmbo.study.trial_attributes import REPORT_AXIS
from optuna_llmbo.study.trial_attributes import SECONDS
from optuna_llmbo.study.trial_attributes import TRIAL_CONFIG
from optuna_llmbo.study.trial_attributes import TRIAL_FOLDER


_ENDS: dict[str, Any] = {
    INFEASIBLE: False, INTERRUPTED: False, PRUNED_REASON: "", FAILED_REASON: "", LOG_END: "",
    PROBLEMS: [],
}  # fmt: skip
"""Attributes that say how a trial ended, and their values for one that has not."""
_SHORTEST, _LONGEST = 0.1, 1.0
"""Seconds between two looks at what the command has written."""
_SENTENCE, _SENTENCES = 300, 6
"""Most characters of a reason or problem that are kept, and most problems of a trial."""
_SEVERAL = 12
"""Most names that a message lists, unless they are like the one that is missing."""


class Run:
    """One trial's command.

    Args:
        trial: the trial.
        options: what the objective was made with.
        limits: what stops it.
        folder: the trial's folder, which is there.
        devices: what it may use, as CUDA_VISIBLE_DEVICES has it; empty for all.
        is_default: whether it is the control, which is never pruned.
        cancelled: is set when the user stops the search, from another thread.
        has_run: whether the command has run in the folder already, and ended well.
    """

    def __init__(
        self,
        trial: BaseTrial,
        options: CommandOptions,
        limits: TimeLimits,
        folder: Path,
        *,
        devices: str = "",
        is_default: bool = False,
        cancelled: threading.Event | None = None,
        has_run: bool = False,
    ) -> None:
        self._trial = trial
        self._options = options
        self._limits = limits
        self._folder = folder
        self._devices = devices
        self._is_default = is_default
        self._cancelled = cancelled or threading.Event()
        self._has_run = has_run
        self._log = folder / folders.LOG
        self._reported = 0
        self._told: tuple[float | None, float | None] = (None, None)
        self._problems: list[str] = []

    def __call__(self, params: Mapping[str, Any], progress: Any = None) -> float:
        """Run the command with these parameters.

        Args:
            params: values of all parameters.
            progress: called with a `TrainingProgress` whenever there is news; None for nobody.

        Returns:
            The metric.

        Raises:
            KeyboardInterrupt: if the user stops the search.
            optuna.TrialPruned: if the pruner says so, or the configuration cannot be run.
            SearchTimedOut: if the time of the search is over.
            TrialCrashed: if the command fails, or writes no metric.
        """
        started = time.monotonic()
        self._forget()
        self._trial.set_user_attr(TRIAL_FOLDER, str(self._folder))
        self._trial.set_user_attr(IS_DEFAULT, self._is_default)
        completes = False
        try:
            value = self._run(self._prepared(params), progress, started)
            completes = True
            return value
        except KeyboardInterrupt:
            self._trial.set_user_attr(INTERRUPTED, True)
            raise
        finally:
            self._trial.set_user_attr(SECONDS, round(time.monotonic() - started, 3))
            if not completes:
                self._trial.set_user_attr(LOG_END, log_end(self._log))

    def _forget(self) -> None:
        """Take back how the trial was to end that this one retries, whose search was killed while
        it stopped the command: a retry has its attributes."""
        said = self._trial.user_attrs
        for name, nothing in _ENDS.items():
            if said.get(name):
                self._trial.set_user_attr(name, nothing)

    def _prepared(self, params: Mapping[str, Any]) -> Call:
        """What is to be run; the copy of the configuration is written."""
        plan, config = self._options.plan, self._options.plan.config
        copy = "" if config is None else str(self._folder / config.path.name)
        call = plan.fill(
            params,
            {
                "config": copy,
                "folder": str(self._folder),
                "trial": self._trial.number,
                "gpus": self._devices,
            },
        )
        if config is not None:
            self._trial.set_user_attr(TRIAL_CONFIG, copy)
        if not self._has_run:
            if config is not None:
                folders.write(Path(copy), config.with_values(call.values))
            self._describe(params, call)
        return call

    def _describe(self, params: Mapping[str, Any], call: Call) -> None:
        """Write what the trial is, so that it can be run by hand."""
        facts = {
            "trial": self._trial.number,
            "params": dict(params),
            "command": shlex.join(call.words),
            "environment": dict(call.env),
        }
        folders.write(self._folder / folders.FACTS, json.dumps(facts, indent=2) + "\n")

    def _run(self, call: Call, progress: Any, started: float) -> float:
        metrics = self._metrics(call)
        if self._has_run:
            return self._result(metrics, progress)
        process = Process(
            call.words,
            self._environment(call),
            self._log,
            self._options.grace,
            call.stop_words,
            end_file=self._folder / folders.END,
        )
        try:
            while not process.wait(_pause(time.monotonic() - started)):
                if metrics.read():
                    self._tell_progress(metrics, progress)
                    self._report(metrics)
                self._limits.check(self._trial, started)
                if self._cancelled.is_set():
                    raise KeyboardInterrupt
        finally:
            exit = process.stop()
            self._trial.set_user_attr(EXIT_CODE, exit.code)
            if exit.left:
                self.note(f"processes {exit.left} could not be killed")
        ending = ending_of(exit, self._log)
        if ending is not None:
            raise self._ended(ending)
        return self._result(metrics, progress)

    def _result(self, metrics: Metrics, progress: Any) -> float:
        """The metric of a command that has ended well."""
        metrics.read(is_final=True)
        self._tell_progress(metrics, progress)
        return self._value(metrics)

    def _metrics(self, call: Call) -> Metrics:
        options = self._options
        return Metrics(
            self._folder,
            self._log,
            options.metric,
            pattern=options.pattern,
            files=options.metric_files,
            settings=self._settings(call),
        )

    def _settings(self, call: Call) -> dict[str, Any]:
        config = self._options.plan.config
        return {} if config is None else config.leaves() | dict(call.values)

    def _environment(self, call: Call) -> dict[str, str]:
        env = {"PYTHONUNBUFFERED": "1"} | dict(os.environ)  # else its metrics come late
        if self._devices:
            env["CUDA_VISIBLE_DEVICES"] = self._devices
        return env | dict(call.env)

    def _tell_progress(self, metrics: Metrics, progress: Any) -> None:
        now = metrics.progress()
        if progress is None or now == self._told or now == (None, None):
            return
        self._told = now
        try:
            progress(TrainingProgress(self._trial.number, *now))
        except optuna.TrialPruned:
            raise
        except Exception as error:
            self.note(f"The progress function failed: {type(error).__name__}: {error}")

    def _report(self, metrics: Metrics) -> None:
        """Report what is new, and stop if that is hopeless.

        Raises:
            optuna.TrialPruned: if the metric is not finite, or the pruner says so.
        """
        self._check_finite(metrics)
        axis = self._axis(metrics)
        if axis is None:
            return
        for report in metrics.reports(axis):
            if report.step <= self._reported:
                continue
            self._reported = report.step
            self._trial.report(report.value, report.step)
            is_over = axis == "percent" and report.step >= 100
            if not self._is_default and not is_over and self._should_prune():
                raise self._pruned(f"by the pruner at {said(report.step, axis)}")

    def _should_prune(self) -> bool:
        try:
            return self._trial.should_prune()
        except Exception as error:
            self.note(f"The pruner failed and did not prune: {type(error).__name__}: {error}")
            return False

    def _axis(self, metrics: Metrics) -> Axis | None:
        """What steps are in this study: what the first trial could tell, for pruners compare."""
        ours = metrics.axis()
        study = getattr(self._trial, "study", None)
        if ours is None or study is None:
            return ours
        there = axis_of(study)
        if there is None:
            study.set_user_attr(REPORT_AXIS, ours)
            if ours != "percent" and isinstance(study.pruner, optuna.pruners.HyperbandPruner):
                self.note(
                    f"reports are by {ours}, as the command does not say how long it takes: "
                    "HyperbandPruner needs a max_resource on that scale."
                )
        return there or ours

    def _check_finite(self, metrics: Metrics) -> None:
        value = metrics.not_finite()
        if value is not None:
            raise self._infeasible(f"diverged: {self._options.metric} is {value}")

    def _value(self, metrics: Metrics) -> float:
        options = self._options
        self._check_finite(metrics)
        value = metrics.value(best=options.direction if options.take == "best" else None)
        if value is None:
            raise self._ended(Ending("failed", self._no_metric(metrics)))
        axis = self._axis(metrics)
        for report in metrics.reports(axis) if axis is not None else ():
            if report.step > self._reported:  # those of the end; there is nothing left to prune
                self._reported = report.step
                self._trial.report(report.value, report.step)
        assert math.isfinite(value)
        return value

    def _no_metric(self, metrics: Metrics) -> str:
        names, metric = metrics.names(), self._options.metric
        if self._options.pattern is not None:
            return f"the command ended well, but no line matched {self._options.pattern.pattern!r}"
        if not names:
            return (
                f"the command ended well, but wrote no metrics into {self._folder} or its output: "
                "is its output folder set to {folder}?"
            )
        alike = [name for name in names if metric[:4] in name]
        near = names if len(names) <= _SEVERAL else alike or names[:_SEVERAL]
        return f"the command ended well, but wrote no {metric!r}.{did_you_mean(metric, near)}"

    def _ended(self, ending: Ending) -> Exception:
        """Record how the command ended; return the exception to raise."""
        if ending.kind == "infeasible":
            return self._infeasible(ending.reason)
        self._trial.set_user_attr(FAILED_REASON, ending.reason[:_SENTENCE])
        return TrialCrashed(ending.reason)

    def _pruned(self, reason: str) -> optuna.TrialPruned:
        self._trial.set_user_attr(PRUNED_REASON, reason[:_SENTENCE])
        return optuna.TrialPruned(reason)

    def _infeasible(self, reason: str) -> optuna.TrialPruned:
        self._trial.set_user_attr(INFEASIBLE, True)
        return self._pruned(reason)

    def note(self, problem: str) -> None:
        """Record and warn of what went wrong in the trial without ending it."""
        problem = problem[:_SENTENCE]
        warn_once(f"trial {self._trial.number}: {problem}")
        if problem in self._problems:
            return
        self._problems = [*self._problems, problem][:_SENTENCES]
        self._trial.set_user_attr(PROBLEMS, self._problems)


def _pause(elapsed: float) -> float:
    """Seconds until the next look, a fiftieth of the time that the command has run."""
    return min(_LONGEST, max(_SHORTEST, elapsed / 50))
