"""One trial's training: what it reports, what it records and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import math
import time

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import torch

from optuna_llmbo.lora import train as training
from optuna_llmbo.lora.adapter import adapter
from optuna_llmbo.lora.evaluate import device_of
from optuna_llmbo.lora.evaluate import validation_loss
from optuna_llmbo.lora.prepare import Options
from optuna_llmbo.lora.prepare import Prepared
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.resources import peak_memory_bytes
from optuna_llmbo.lora.resources import reset_peak_memory


@dataclass(frozen=True)
class Progress:
    """Where a trial is, after each optimizer step."""

    trial_number: int
    fraction: float
    """Of the optimizer steps, in (0, 1]."""
    loss: float
    """Training loss of the step, nats per response token."""


class Run:
    """One trial's training: what it reports, records and how it ends."""

    def __init__(
        self,
        trial: optuna.Trial,
        recipe: LoRARecipe,
        prepared: Prepared,
        options: Options,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.trial = trial
        self.recipe = recipe
        self.prepared = prepared
        self.options = options
        self.progress = progress
        self.is_default = recipe == prepared.space.default_recipe
        self.steps = 0
        self.tokens = 0

    def __call__(self) -> float:
        """Train, evaluate and report; record what it cost however it ends.

        Returns:
            The validation loss after training.
        """
        started = time.perf_counter()
        device = device_of(self.prepared.model)
        reset_peak_memory(device)
        try:
            return self._train()
        except training.TrainingDiverged as error:
            raise self._pruned(str(error)) from error
        except torch.OutOfMemoryError as error:
            raise self._pruned("out of GPU memory") from error
        except KeyboardInterrupt:
            self.trial.set_user_attr("interrupted", True)
            raise
        finally:
            self._record(time.perf_counter() - started, peak_memory_bytes(device))

    def _train(self) -> float:
        model, options = self.prepared.model, self.options
        loss, reported = math.nan, 0
        with adapter(model, self.recipe, options.seed):
            for step in training.training_steps(
                model,
                self.prepared.train,
                self.recipe,
                micro_batch_size=options.micro_batch_size,
                seed=options.seed,
            ):
                self._count(step)
                point = step.number * options.reports // step.total
                if point > reported:
                    reported = point
                    loss = self._evaluate_and_report(round(100 * point / options.reports))
            self._record_metrics()
        return loss

    def _count(self, step: training.TrainStep) -> None:
        self.steps = step.number
        self.tokens += step.tokens
        if self.progress is not None:
            fraction = step.number / step.total
            self.progress(Progress(self.trial.number, fraction, step.loss))

    def _evaluate_and_report(self, percent: int) -> float:
        loss = validation_loss(
            self.prepared.model,
            self.prepared.validation,
            batch_size=self.options.micro_batch_size,
        )
        if not math.isfinite(loss):
            raise training.TrainingDiverged(f"the validation loss is {loss} at {percent}%")
        self.trial.report(loss, percent)
        if percent < 100 and not self.is_default and self.trial.should_prune():
            raise self._pruned(f"by the pruner at {percent}%")
        return loss

    def _record_metrics(self) -> None:
        prepared, metrics = self.prepared, self.options.extra_metrics
        if metrics:
            values = {
                name: float(metric(prepared.model, prepared.tokenizer, prepared.validation))
                for name, metric in metrics.items()
            }
            self.trial.set_user_attr("metrics", values)

    def _pruned(self, reason: str) -> optuna.TrialPruned:
        self.trial.set_user_attr("pruned_reason", reason)
        return optuna.TrialPruned(reason)

    def _record(self, seconds: float, memory: int) -> None:
        examples = len(self.prepared.train)
        recipe = self.recipe
        planned = training.step_count(examples, recipe.batch_size, recipe.epochs)
        left_over = recipe.epochs * examples - planned * recipe.batch_size
        values = {
            "seconds": round(seconds, 3),
            "steps": self.steps,
            "tokens": self.tokens,
            "examples": examples,
            "dropped_examples": left_over,
            "peak_memory_bytes": memory,
            "base_loss": self.prepared.base_loss,
            "is_default": self.is_default,
        }
        for name, value in values.items():
            self.trial.set_user_attr(name, value)


def record_gains(trial: optuna.Trial, loss: float, base_loss: float) -> None:
    """Record how much a complete trial gains over the base model and over the default."""
    trial.set_user_attr("gain_over_base", base_loss - loss)
    default_loss = loss if trial.user_attrs["is_default"] else _default_loss(trial)
    if default_loss is not None:
        trial.set_user_attr("default_loss", default_loss)
        trial.set_user_attr("gain_over_default", default_loss - loss)


def default_trial(study: optuna.Study) -> FrozenTrial | None:
    """The study's first complete trial with the default configuration, if there is one."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return next((trial for trial in done if trial.user_attrs.get("is_default")), None)


def _default_loss(trial: optuna.Trial) -> float | None:
    study = getattr(trial, "study", None)
    if study is None:
        return None
    default = default_trial(study)
    return None if default is None else default.value
