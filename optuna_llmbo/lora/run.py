"""One trial's training: what it reports, what it records and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import asdict
import math
import time
import traceback
from typing import Any

import optuna
from optuna.trial import BaseTrial
import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.lora import distributed
from optuna_llmbo.lora import train as training
from optuna_llmbo.lora.adapter import adapter
from optuna_llmbo.lora.best_report import BestReport
from optuna_llmbo.lora.checkpoint import TrialFolders
from optuna_llmbo.lora.evaluate import device_of
from optuna_llmbo.lora.measuring import extras_of
from optuna_llmbo.lora.measuring import MeasurementFailed
from optuna_llmbo.lora.measuring import said
from optuna_llmbo.lora.measuring import targets_of
from optuna_llmbo.lora.memory import is_out_of_memory
from optuna_llmbo.lora.metrics import Loss
from optuna_llmbo.lora.metrics import TrainingSeconds
from optuna_llmbo.lora.options import ObjectiveOptions
from optuna_llmbo.lora.prepare import identity
from optuna_llmbo.lora.prepare import Prepared
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.record import best_trials
from optuna_llmbo.lora.record import record_cost
from optuna_llmbo.lora.record import record_gains
from optuna_llmbo.lora.record import running_trials
from optuna_llmbo.lora.recorded import record_recipe
from optuna_llmbo.lora.resources import peak_memory_bytes
from optuna_llmbo.lora.resources import reset_peak_memory
from optuna_llmbo.study import compat
from optuna_llmbo.study.outcome import TrialCrashed as TrialCrashed
from optuna_llmbo.study.time_limits import SearchTimedOut
from optuna_llmbo.study.time_limits import TimeLimits
from optuna_llmbo.study.training_progress import TrainingProgress as TrainingProgress
from optuna_llmbo.study.trial_attributes import ADAPTER
from optuna_llmbo.study.trial_attributes import BEST_REPORT
from optuna_llmbo.study.trial_attributes import FAILED_REASON
from optuna_llmbo.study.trial_attributes import INFEASIBLE
from optuna_llmbo.study.trial_attributes import INTERRUPTED
from optuna_llmbo.study.trial_attributes import IS_DEFAULT
from optuna_llmbo.study.trial_attributes import METRICS
from optuna_llmbo.study.trial_attributes import PEAK_MEMORY_BYTES
from optuna_llmbo.study.trial_attributes import PROBLEMS
from optuna_llmbo.study.trial_attributes import PRUNED_REASON
from optuna_llmbo.study.trial_attributes import SECONDS
from optuna_llmbo.study.trial_attributes import STEPS
from optuna_llmbo.study.trial_attributes import TOKENS
from optuna_llmbo.study.trial_attributes import TRACEBACK


EXPLODED = 3.0
"""A trial is pruned when its recent loss exceeds this many times the base model's, which is above
the loss of guessing."""
_FEW = 4
OUT_OF_MEMORY = "out of memory with one example at once"
_TRACEBACK = 2000
"""Last characters of a traceback that are kept; they fit every storage's attributes."""
_SENTENCE, _SENTENCES = 300, 6
"""Most characters of a problem that are kept, and most problems of a trial."""


class Run:
    """One trial's training: what it reports, records and how it ends."""

    def __init__(
        self,
        trial: BaseTrial,
        recipe: LoRARecipe,
        prepared: Prepared,
        options: ObjectiveOptions,
        progress: Callable[[TrainingProgress], None] | None,
        limits: TimeLimits,
    ) -> None:
        self.trial = trial
        self.recipe = recipe
        self.prepared = prepared
        self.options = options
        self.progress = progress
        self._limits = limits
        self.is_default = recipe == prepared.space.default_recipe
        self.steps = 0
        self.tokens = 0
        self._losses: list[float] = []
        self._values: dict[int, float] = {}
        self._problems: list[str] = []
        self._started = time.monotonic()
        self._save: Callable[[], dict[str, Any]] | None = None
        larger = prepared.targets[0].direction == "maximize"
        keeps_best = options.load_best_model_at_end
        self._best = BestReport(larger_is_better=larger) if keeps_best else None
        self.trained: Mapping[str, torch.nn.Parameter] = {}
        """What is trained, by name; set by whoever trains it."""
        folder = options.folder
        is_first = distributed.rank() == 0  # in distributed training one process writes
        self._folders = TrialFolders(folder) if folder is not None and is_first else None
        self._attempts = [*compat.retry_history(trial), trial.number]

    def start(self) -> None:
        """Record what is going to be trained."""
        record_recipe(self.trial, self.recipe)

    def __call__(self) -> tuple[float, ...]:
        """Train, evaluate and report; record the cost however it ends.

        Returns:
            The values of the search's metrics after training; all nan, with which Optuna fails
            the trial and goes on, if one of them could not be measured.
        """
        self.start()
        started = self._started = time.monotonic()
        micro_batch, size = self.prepared.micro_batch, self.prepared.micro_batch.size
        device = device_of(self.prepared.model)
        reset_peak_memory(device)
        try:
            return self._train()
        except training.TrainingDiverged as error:
            raise self.infeasible(str(error)) from error
        except MeasurementFailed as error:
            self._failed(str(error), error.__cause__)
            return (math.nan,) * len(self.prepared.targets)
        except KeyboardInterrupt:
            self.trial.set_user_attr(INTERRUPTED, True)
            raise
        except (optuna.TrialPruned, InputError, SearchTimedOut):
            raise
        except Exception as error:
            if is_out_of_memory(error):
                micro_batch.size = size  # only this configuration does not fit
                raise self.infeasible(OUT_OF_MEMORY) from error
            self._failed(said(error), error)
            raise TrialCrashed(f"{type(error).__name__}: {error}") from error
        finally:
            if self._folders is not None:
                self._folders.forget(self._attempts)
            self.record(time.monotonic() - started, peak_memory_bytes(device))

    def _train(self) -> tuple[float, ...]:
        prepared, options = self.prepared, self.options
        with adapter(prepared.model, self.recipe, options.seed):
            run = training.Training(
                prepared.model,
                prepared.train,
                self.recipe,
                micro_batch=prepared.micro_batch,
                seed=options.seed,
            )
            self.trained = run.trained
            self._go_on(run)
            for step in run:
                percent = self.count(step)
                self._save = run.state_dict
                if percent is not None and len(prepared.targets) == 1:
                    self._measure_and_report(percent)
            several = len(prepared.targets) > 1
            values = self._measured() if several else (self.decisive(self._values[100]),)
            self.conclude()
        return values

    def decisive(self, last: float) -> float:
        """The value of the trial: that of its last report; or of its best one, to whose weights it
        returns then."""
        if self._best is None or self._best.value is None:
            return last
        self._best.restore_(self.trained)
        self.trial.set_user_attr(BEST_REPORT, self._best.percent)
        return self._best.value

    def _measure_and_report(self, percent: int) -> None:
        """Report the metric; a report before the last that cannot be measured is left out."""
        try:
            (value,) = self._measured()
        except MeasurementFailed as error:
            if percent == 100:
                raise
            self.note(f"No report at {percent}%: {error}")
            self._keep_state()
        else:
            self.report(value, percent)

    def _measured(self) -> tuple[float, ...]:
        """Current values of the metrics that the search optimizes.

        Raises:
            MeasurementFailed: if one of them cannot be measured.
            TrainingDiverged: if the loss is not finite.
        """
        prepared = self.prepared
        own = (Loss, TrainingSeconds)
        others = [target for target in prepared.targets if not isinstance(target, own)]
        values = targets_of(others, prepared.model, prepared.tokenizer, prepared.validation)
        for target in prepared.targets:
            if isinstance(target, Loss):
                values[target.name] = prepared.loss_on(prepared.validation)
            elif isinstance(target, TrainingSeconds):
                values[target.name] = time.monotonic() - self._started
        ordered = tuple(values[target.name] for target in prepared.targets)
        if not all(map(math.isfinite, ordered)):
            what = ", ".join(f"{name} is {value}" for name, value in values.items())
            raise training.TrainingDiverged(f"on the validation examples the {what}")
        return ordered

    @property
    def _about(self) -> dict[str, Any]:
        """What is trained; a state of anything else is not resumed."""
        return {"recipe": asdict(self.recipe), "objective": identity(self.prepared.fingerprint)}

    def _go_on(self, run: training.Training) -> None:
        """Resume the training of the trial that this one retries."""
        if self._folders is None or distributed.is_on():
            return
        device = device_of(self.prepared.model)
        state = self._folders.load(self._attempts, self._about, device=device)
        if state is None:
            return
        run.load_state_dict(state["training"])
        self.steps, self.tokens = state["steps"], state["tokens"]
        self._values = dict(state["values"])
        if self._best is not None:
            self._best.load_state_dict(state["best"])
        for percent, loss in self._values.items():
            self.trial.report(loss, percent)

    def count(self, step: training.TrainStep) -> int | None:
        """Count a step; return the percentage of the training to report at, if a report is due.

        Raises:
            TrainingDiverged: if the loss explodes.
            TrialTimedOut: if the trial has taken too long.
            SearchTimedOut: if the time of the search is over.
        """
        self.steps = step.number
        self.tokens += step.tokens
        self._losses = [*self._losses, step.loss][-_FEW:]
        mean = sum(self._losses) / len(self._losses)
        if len(self._losses) == _FEW and mean > EXPLODED * self.prepared.base_loss:
            raise training.TrainingDiverged(
                f"the training loss of the last {_FEW} steps is {mean:.3g}, more than "
                f"{EXPLODED:g} times the base model's, at step {step.number} of {step.total}"
            )
        self._tell_progress(step)
        self.check_time()
        return training.report_due(step, self.options.reports)

    def report(self, loss: float, percent: int) -> None:
        """Report the search's metric at a percentage of the training.

        Raises:
            TrainingDiverged: if it is not finite.
            optuna.TrialPruned: if the pruner says so, or the trial has taken too long.
            SearchTimedOut: if the time of the search is over.
        """
        if not math.isfinite(loss):
            raise training.TrainingDiverged(f"the validation loss is {loss} at {percent}%")
        self._values[percent] = loss
        if self._best is not None:
            self._best.see(percent, loss, self.trained)
        self.trial.report(loss, percent)
        if percent == 100:  # the trial has its value, whatever the time
            return
        self.check_time()
        self._keep_state()
        if not self.is_default and self._should_prune():
            raise self.pruned(f"by the pruner at {percent}%")

    def check_time(self) -> None:
        """Stop the trial if it is over a time limit.

        Raises:
            TrialTimedOut: if it has taken too long.
            SearchTimedOut: if the time of the search is over.
        """
        self._limits.check(self.trial, self._started, agree=distributed.any_of)

    def _should_prune(self) -> bool:
        try:
            return self.trial.should_prune()
        except Exception as error:
            self.note(f"The pruner failed and did not prune: {said(error)}")
            return False

    def _keep_state(self) -> None:
        """Save what a retry of the trial goes on from."""
        if self._folders is None or self._save is None or distributed.is_on():
            return
        state = {"training": self._save(), "values": self._values}
        state |= {"steps": self.steps, "tokens": self.tokens}
        if self._best is not None:
            state["best"] = self._best.state_dict()
        try:
            self._folders.save(self.trial.number, self._about, state)
        except InputError as error:
            self.note(f"A retry of the trial would start over: {error}")

    def _tell_progress(self, step: training.TrainStep) -> None:
        """Call the user's function; it can prune the trial, but does not fail it."""
        if self.progress is None:
            return
        fraction = step.number / step.total
        try:
            self.progress(TrainingProgress(self.trial.number, fraction, step.loss))
        except optuna.TrialPruned:
            raise
        except Exception as error:
            self.note(f"The progress function failed: {said(error)}")

    def conclude(self) -> None:
        """Measure the extra metrics and save the adapter, which is still attached."""
        prepared, metrics = self.prepared, self.options.extra_metrics
        if metrics:
            values, problems = extras_of(
                metrics, prepared.model, prepared.tokenizer, prepared.validation
            )
            self.trial.set_user_attr(METRICS, values)
            for problem in problems:
                self.note(problem)
        if self.options.folder is not None and self.options.keep:
            self._save_adapter()

    def _save_adapter(self) -> None:
        where = ""  # empty: it was not saved
        if self._folders is not None:
            try:
                where = str(
                    self._folders.save_adapter(
                        self.trial.number, self.prepared.model, self.recipe, self.prepared.base
                    )
                )
            except InputError as error:
                self.note(f"The adapter is not kept: {error}")
        self.trial.set_user_attr(ADAPTER, where)  # by all processes; the first one's counts

    def complete(self, value: float) -> None:
        """Record the gains of a complete trial, and remove adapters that it surpasses.

        Args:
            value: value of the search's first metric; nan, of a trial that has failed, does
                nothing.
        """
        if math.isnan(value):
            return
        if self.prepared.is_on_loss:
            record_gains(self.trial, value, self.prepared)
        if self._folders is not None:
            larger = self.prepared.targets[0].direction == "maximize"
            best = best_trials(self.trial, value, self.options.keep, larger_is_better=larger)
            self._folders.keep([*best, *running_trials(self.trial)])

    def note(self, problem: str) -> None:
        """Record and warn of what went wrong in the trial without ending it."""
        problem = problem[:_SENTENCE]
        warn_once(f"trial {self.trial.number}: {problem}")
        if distributed.is_on() or problem in self._problems:  # processes set attributes together
            return
        self._problems = [*self._problems, problem][:_SENTENCES]
        self.trial.set_user_attr(PROBLEMS, self._problems)

    def _failed(self, reason: str, error: BaseException | None) -> None:
        """Record why the trial fails."""
        self.trial.set_user_attr(FAILED_REASON, reason[:_SENTENCE])
        if error is not None:
            text = "".join(traceback.format_exception(error))
            self.trial.set_user_attr(TRACEBACK, text[-_TRACEBACK:])

    def pruned(self, reason: str) -> optuna.TrialPruned:
        """Record why the trial is pruned; return the exception to raise."""
        self.trial.set_user_attr(PRUNED_REASON, reason)
        return optuna.TrialPruned(reason)

    def infeasible(self, reason: str) -> optuna.TrialPruned:
        """As `pruned`, for a configuration that cannot be run."""
        self.trial.set_user_attr(INFEASIBLE, True)
        return self.pruned(reason)

    def record(self, seconds: float, memory: int) -> None:
        """Record the cost of the trial, however it ended."""
        record_cost(
            self.trial,
            self.prepared,
            self.recipe,
            {
                SECONDS: round(seconds, 3),
                STEPS: self.steps,
                TOKENS: self.tokens,
                PEAK_MEMORY_BYTES: memory,
                IS_DEFAULT: self.is_default,
            },
        )
