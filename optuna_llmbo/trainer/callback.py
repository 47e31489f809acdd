"""A callback of the Trainer of `transformers` that reports to an Optuna trial."""

from __future__ import annotations

from collections.abc import Callable
import math
import time
import traceback
from types import TracebackType
from typing import Any

import optuna
from optuna.trial import BaseTrial
import torch
from transformers import TrainerCallback

from optuna_llmbo.errors import did_you_mean
from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.lora import distributed
from optuna_llmbo.lora.memory import is_out_of_memory
from optuna_llmbo.lora.memory import release
from optuna_llmbo.lora.options import check_count
from optuna_llmbo.lora.resources import peak_memory_bytes
from optuna_llmbo.lora.resources import reset_peak_memory
from optuna_llmbo.lora.train import percent_due
from optuna_llmbo.study import marks
from optuna_llmbo.study.time_limits import TimeLimits
from optuna_llmbo.study.training_progress import TrainingProgress
from optuna_llmbo.study.trial_attributes import BASE_LOSS
from optuna_llmbo.study.trial_attributes import EXAMPLES
from optuna_llmbo.study.trial_attributes import PEAK_MEMORY_BYTES
from optuna_llmbo.study.trial_attributes import SECONDS
from optuna_llmbo.study.trial_attributes import STEPS
from optuna_llmbo.study.trial_attributes import TOKENS


class TrialCallback(TrainerCallback):
    """Report a Trainer's evaluations to an Optuna trial, and end the run as the trial ends.

    For the Trainer of `transformers`, TRL's SFTTrainer and DPOTrainer, and every other one that
    builds on it. Add it last, so that other callbacks see the end of a pruned run too:

        callback = TrialCallback(trial)
        trainer.add_callback(callback)
        with callback:
            trainer.train()
        return callback.value

    - **Reports.** Each evaluation's metric is reported; the step is the percentage of the training
      done, so that pruners compare runs of different batch sizes at equal amounts of data.
      Evaluations at the same percentage are reported once, one before the first step never. With
      `reports`, the callback itself has the model evaluated at that many evenly spaced points (25,
      50, 75 and 100 for 4), whatever the Trainer's own schedule is, and only these are reported.
    - **Pruning.** The run is stopped in the Trainer's own way, and `optuna.TrialPruned` is raised
      at its end.
    - **Divergence.** A metric, training loss or gradient that is not finite ends the run as pruned
      and `infeasible`. (The Trainer replaces losses that are not finite in its log, unless
      `logging_nan_inf_filter` is off; the gradient's norm and the metric show them all the same.)
    - **Out of memory**, on a GPU or the CPU: the same, if the training is inside `with callback`,
      because an error passes no other callback.
    - **Facts.** `seconds`, `steps`, `examples`, `peak_memory_bytes`, and `tokens` where the
      Trainer counts them (`include_num_input_tokens_seen`) become user attributes of the trial,
      however the run ends inside `with`.

    In a distributed run all processes need the callback, with a
    `optuna_integration.TorchDistributedTrial` each.

    Args:
        trial: the running trial.
        metric: a key of the metrics that an evaluation returns, such as "eval_loss".
        reports: how many evenly spaced evaluations to make, 1 to 100; None: those of the Trainer.
        prune: whether the pruner is asked. What cannot be trained is pruned all the same.
        progress: called after each step.
        limits: checked at each step of training and evaluation.

    Raises:
        InputError: in `trainer.train()`, if nothing is evaluated, or an evaluation has no such
            metric.
    """

    def __init__(
        self,
        trial: BaseTrial,
        metric: str = "eval_loss",
        *,
        reports: int | None = None,
        prune: bool = True,
        progress: Callable[[TrainingProgress], None] | None = None,
        limits: TimeLimits | None = None,
    ) -> None:
        if reports is not None:
            check_count("reports", reports, 100)
        self.trial = trial
        self.metric = metric
        self.metrics: dict[str, Any] = {}
        """All that the last evaluation with the metric returned."""
        self.value_before: float | None = None
        """The metric before the first step, if it was evaluated then (`eval_on_start`)."""
        self._reports = reports
        self._prune = prune
        self._progress = progress
        self._limits = limits or TimeLimits()
        self._is_training = False
        self._is_recorded = False
        self._ending: optuna.TrialPruned | None = None
        self._value: float | None = None
        self._reported: set[int] = set()
        self._evaluated_at: int | None = None
        self._missed: dict[str, Any] | None = None
        self._loss: float | None = None
        self._facts: dict[str, Any] = {STEPS: 0}
        self._device = torch.device("cpu")
        self._at_once: int | None = None
        self._started = time.monotonic()

    @property
    def value(self) -> float:
        """The metric of the last evaluation; with `load_best_model_at_end` by this metric, of the
        best one, whose weights the Trainer has loaded.

        Raises:
            InputError: if there was no evaluation.
        """
        if self._value is None:
            raise InputError(
                f"no evaluation has returned {self.metric!r} yet: train with an eval_dataset, and "
                "with an eval_strategy or reports=."
            )
        return self._value

    def __enter__(self) -> TrialCallback:
        """Begin to measure."""
        self._started = time.monotonic()
        self._is_recorded = False
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Record the facts; lack of memory makes the trial infeasible.

        Raises:
            optuna.TrialPruned: in the place of an out-of-memory error.
        """
        self._is_training = False
        self._record()
        if error is not None and is_out_of_memory(error):
            traceback.clear_frames(trace)  # which keep tensors alive
            release()
            raise self.out_of_memory() from None

    def out_of_memory(self) -> optuna.TrialPruned:
        """Record that memory ran out; return the exception to raise."""
        n = self._at_once
        at_once = f" with {n} example{'' if n == 1 else 's'} at once on a device" if n else ""
        return marks.infeasible(self.trial, f"out of memory{at_once}")

    # --- events of the Trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check that the run can be reported."""
        if distributed.is_on() and torch.distributed.get_world_size() > 1:
            self._check_distributed()
        if self._reports is None and _name_of(args.eval_strategy) == "no":
            raise InputError(
                'the Trainer evaluates nothing (eval_strategy="no"), so that there is nothing to '
                'report: set eval_strategy="steps" and eval_steps, or TrialCallback(reports=4).'
            )
        self._is_training = True
        self._is_recorded = False
        self._device = args.device
        self._at_once = args.per_device_train_batch_size
        reset_peak_memory(self._device)
        data = getattr(kwargs.get("train_dataloader"), "dataset", None)
        if hasattr(data, "__len__"):
            self._facts[EXAMPLES] = len(data)  # type: ignore[arg-type]

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check the evaluations since the last step."""
        self._check_found()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count, and evaluate if a report is due."""
        self._facts[STEPS] = state.global_step
        if state.num_input_tokens_seen:
            self._facts[TOKENS] = int(state.num_input_tokens_seen)
        self._limits.check(self.trial, self._started, agree=distributed.any_of)
        self._tell_progress(state)
        if self._reports is not None:
            due = percent_due(state.global_step, state.max_steps, self._reports)
            control.should_evaluate = control.should_evaluate or due is not None

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop a long evaluation in time, too."""
        if self._is_training:
            self._limits.check(self.trial, self._started, agree=distributed.any_of)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Notice a loss or a gradient that is not finite."""
        logs = logs or {}
        if not self._is_training or self._ending is not None:
            return
        self._loss = logs.get("loss", self._loss)
        # a gradient that overflows float16 is no divergence: its scale is lowered
        watched = ("loss",) if args.fp16 else ("loss", "grad_norm")
        bad = {n: logs[n] for n in watched if n in logs and not math.isfinite(float(logs[n]))}
        if bad:
            what = " and ".join(f"the {_WORDS[name]} is {value}" for name, value in bad.items())
            at = f"at step {state.global_step} of {state.max_steps}"
            self._stop(control, marks.infeasible(self.trial, f"in training {what} {at}"))

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, Any], **kwargs: Any
    ) -> None:
        """Report an evaluation that the training makes."""
        if not self._is_training or self._ending is not None:
            return
        if self.metric not in metrics:
            if self._evaluated_at != state.global_step:  # of several datasets one may have it
                self._missed = {**(self._missed or {}), **metrics}
            return
        self._evaluated_at, self._missed = state.global_step, None
        self.metrics = dict(metrics)
        value = float(metrics[self.metric])
        if state.global_step == 0:
            self._note_before(value)
        else:
            self._report(value, self._percent(state), control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Make no evaluation twice, and none after the run has been stopped."""
        if self._ending is not None:
            control.should_log = control.should_save = control.should_evaluate = False
        elif self._reports is not None and self._evaluated_at == state.global_step:
            control.should_evaluate = False

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the facts, and raise what stopped the run."""
        self._is_training = False
        self._record()
        if self._ending is not None:
            raise self._ending
        self._check_found()
        best = getattr(args, "metric_for_best_model", None) or "loss"
        same = self.metric in (best, f"eval_{best}")
        if args.load_best_model_at_end and same and state.best_metric is not None:
            self._value = float(state.best_metric)

    # --- what they do

    def _percent(self, state: Any) -> int | None:
        """The percentage to report at; None if none is due."""
        step, total = state.global_step, state.max_steps
        if self._reports is not None:
            return percent_due(step, total, self._reports)
        return 100 if step >= total else min(99, round(100 * step / total))

    def _report(self, value: float, percent: int | None, control: Any) -> None:
        if not math.isfinite(value):
            at = "" if percent is None else f" at {percent}%"
            reason = f"{self.metric} is {value}{at}"
            self._stop(control, marks.infeasible(self.trial, reason))
            return
        self._value = value
        if percent is None or percent in self._reported:
            return
        self._reported.add(percent)
        self.trial.report(value, percent)
        if percent < 100 and self._prune and self._should_prune():
            self._stop(control, marks.pruned(self.trial, f"by the pruner at {percent}%"))

    def _should_prune(self) -> bool:
        try:
            return self.trial.should_prune()
        except Exception as error:  # of any pruner
            warn_once(f"The pruner failed and did not prune: {type(error).__name__}: {error}")
            return False

    def _stop(self, control: Any, ending: optuna.TrialPruned) -> None:
        self._ending = ending
        control.should_training_stop = True
        control.should_save = control.should_evaluate = False

    def _note_before(self, value: float) -> None:
        self.value_before = value
        if self.metric.endswith("loss"):
            self.trial.set_user_attr(BASE_LOSS, value)

    def _check_found(self) -> None:
        if self._missed is not None:
            raise InputError(
                f"metric={self.metric!r}: the evaluation returned no such metric."
                f"{did_you_mean(self.metric, self._missed)} It returned "
                f"{', '.join(sorted(self._missed))}."
            )

    def _check_distributed(self) -> None:
        if type(self.trial).__name__ != "TorchDistributedTrial":
            raise InputError(
                f"{torch.distributed.get_world_size()} processes train together: give the "
                "callback an optuna_integration.TorchDistributedTrial in each of them, made of "
                "the trial in process 0 and of None in the others, so that all of them stop "
                "together."
            )

    def _tell_progress(self, state: Any) -> None:
        """Call the user's function; it can prune the trial, but does not fail it."""
        if self._progress is None:
            return
        fraction = state.global_step / state.max_steps if state.max_steps > 0 else None
        try:
            self._progress(TrainingProgress(self.trial.number, fraction, self._loss))
        except optuna.TrialPruned:
            raise
        except Exception as error:
            warn_once(f"The progress function failed: {type(error).__name__}: {error}")

    def _record(self) -> None:
        if self._is_recorded:
            return
        self._is_recorded = True
        self._facts[SECONDS] = round(time.monotonic() - self._started, 3)
        self._facts[PEAK_MEMORY_BYTES] = peak_memory_bytes(self._device)
        for name, value in self._facts.items():
            self.trial.set_user_attr(name, value)


_WORDS = {"loss": "loss", "grad_norm": "gradient's norm"}


def _name_of(strategy: Any) -> str:
    return str(getattr(strategy, "value", strategy))
