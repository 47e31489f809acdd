"""The objective of a LoRA study: hyperparameters in, validation loss out."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import os
from pathlib import Path
import threading
from typing import Any
import weakref

import optuna
from optuna.trial import BaseTrial
import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.metrics import Measure
from optuna_llmbo.lora.metrics import title_of
from optuna_llmbo.lora.options import Metric
from optuna_llmbo.lora.options import ObjectiveOptions
from optuna_llmbo.lora.prepare import ONLY_NAMES
from optuna_llmbo.lora.prepare import prepare
from optuna_llmbo.lora.prepare import Prepared
from optuna_llmbo.lora.promotable import PromotableLoRA
from optuna_llmbo.lora.run import Run
from optuna_llmbo.lora.space import Space
from optuna_llmbo.lora.table import DataSource
from optuna_llmbo.lora.train import step_count
from optuna_llmbo.study.claim import claim
from optuna_llmbo.study.progress import Goal
from optuna_llmbo.study.time_limits import TimeLimits
from optuna_llmbo.study.training_progress import TrainingProgress


class LoRAObjective:
    """Train a LoRA adapter on a sample of the data and return its validation loss.

    Works under every Optuna sampler, pruner and storage; the study's direction is that of the
    metric, "minimize" for the loss. A trial

    1. gets its hyperparameters from the study's sampler,
    2. trains an adapter on the proxy, the same sample of the training data in every trial,
    3. reports the loss on all validation examples at `reports` evenly spaced points of the
       training. The reported step is the percentage of the training done (25, 50, 75, 100), so
       that pruners compare runs of different batch sizes at equal amounts of data,
    4. returns the last of these losses, in nats per response token (natural logarithm); with
       `load_best_model_at_end` the best one, of which the adapter is kept.

    Model and data are loaded at first use and shared by all trials. The base model is restored
    after every trial, and trials in several threads train one after the other.

    The default configuration (`default_params`) is the control: a trial that runs it is never
    pruned.

    Each trial records as user attributes: `recipe` (all hyperparameters it is trained with, also
    those that are not searched), `seconds`, `steps` (of the optimizer), `tokens` (read
    in training, prompts included), `examples` (size of the proxy), `fraction` (the proxy's share
    of the training examples), `dropped_examples` (left over after the last whole batch),
    `peak_memory_bytes` (CUDA: most allocated in the trial; else the process's largest resident
    size so far), `base_loss`, `gain_over_base`, `is_default`, and once a trial with the default
    configuration is complete `default_loss` and `gain_over_default`, and `metrics` where
    `extra_metrics` asks for some, and `best_report` (a percentage) with
    `load_best_model_at_end`. A trial that diverges, explodes, lacks memory or takes longer than
    `trial_timeout` is pruned with `pruned_reason` and `infeasible`; one stopped from the keyboard
    or by `limits.ends_at` has `interrupted`, one that crashed its `traceback`.

    Under `accelerate launch` or `torchrun` the processes train each trial together, each on a
    share of every batch: wrap the trial in `optuna_integration.TorchDistributedTrial`
    (docs/lora.md).

    The arguments are the fields of `ObjectiveOptions`, which documents each one and is kept as
    `options`; and `progress`, a function called after every optimizer step.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None,
        train: DataSource,
        *,
        validation: DataSource | float | None = None,
        test: DataSource | float | None = None,
        proxy: float = ObjectiveOptions.proxy,
        proxy_by: str = ObjectiveOptions.proxy_by,
        metric: str | Measure | Sequence[str | Measure] = ObjectiveOptions.metric,
        extra_metrics: Mapping[str, Metric] | None = None,
        space: Space | None = None,
        variant: str = ObjectiveOptions.variant,
        epochs: int = ObjectiveOptions.epochs,
        defaults: Mapping[str, Any] | None = None,
        max_length: int = ObjectiveOptions.max_length,
        prompt_column: str | None = None,
        response_column: str | None = None,
        ignore_columns: Sequence[str] = (),
        truncation: str = ObjectiveOptions.truncation,
        chat_template: str | os.PathLike[str] | None = None,
        train_on: str = ObjectiveOptions.train_on,
        reports: int = ObjectiveOptions.reports,
        load_best_model_at_end: bool = ObjectiveOptions.load_best_model_at_end,
        micro_batch_size: int = ObjectiveOptions.micro_batch_size,
        folder: str | os.PathLike[str] | None = None,
        keep: int = ObjectiveOptions.keep,
        seed: int = ObjectiveOptions.seed,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        quantization: str | None = None,
        gradient_checkpointing: bool = ObjectiveOptions.gradient_checkpointing,
        trial_timeout: float | None = None,
        progress: Callable[[TrainingProgress], None] | None = None,
    ) -> None:
        self.options = ObjectiveOptions(
            model=model,
            train=train,
            validation=validation,
            test=test,
            proxy=proxy,
            proxy_by=proxy_by,
            metric=metric,
            extra_metrics=dict(extra_metrics or {}),
            space=space,
            variant=variant,
            epochs=epochs,
            defaults=dict(defaults or {}),
            max_length=max_length,
            prompt_column=prompt_column,
            response_column=response_column,
            ignore_columns=ignore_columns,
            truncation=truncation,
            chat_template=chat_template,
            train_on=train_on,
            reports=reports,
            load_best_model_at_end=load_best_model_at_end,
            micro_batch_size=micro_batch_size,
            folder=folder,
            keep=keep,
            seed=seed,
            device=device,
            dtype=dtype,
            quantization=quantization,
            gradient_checkpointing=gradient_checkpointing,
            trial_timeout=trial_timeout,
        )
        self.progress = progress
        self._start()

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: the options, but no model, data or lock.

        The copy loads them itself, at its first use. A space, metric or `progress` that is a
        function is pickled with it, as far as the pickler at work can do that.
        """
        return {"options": self.options, "progress": self.progress}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As a new objective with these options."""
        self.options, self.progress = state["options"], state["progress"]
        self._start()

    def _start(self) -> None:
        self.limits = TimeLimits(self.options.trial_timeout)
        self._lock = threading.RLock()
        self._prepared: Prepared | None = None
        self._checked_studies: weakref.WeakSet[optuna.Study] = weakref.WeakSet()

    def prepare(self) -> Prepared:
        """Load the model and the data and check all inputs; the first call does the work.

        Raises:
            InputError: for every mistake in the arguments, the data or the search space.
        """
        with self._lock:
            if self._prepared is None:
                self._prepared = prepare(self.options)
            return self._prepared

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[Prepared]:
        """Context in which no other thread trains on the model; calls `prepare`."""
        with self._lock:
            yield self.prepare()

    @property
    def default_params(self) -> dict[str, Any]:
        """The default configuration in the search space's names, for `study.enqueue_trial`.

        Raises:
            InputError: if the space is a function whose parameters cannot express it.
        """
        params = self.prepare().space.default_params
        if params is None:
            raise InputError(
                "the function given as space asks for parameters of its own, so that the default "
                "configuration cannot be written in them: enqueue one yourself."
            )
        return dict(params)

    @property
    def base_loss(self) -> float:
        """Validation loss of the base model, nats per response token."""
        return self.prepare().base_loss

    @property
    def goals(self) -> tuple[Goal, ...]:
        """The metrics that it returns, in their order."""
        targets = self.prepare().targets
        return tuple(Goal(one.name, one.direction, title_of(one.name)) for one in targets)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that determines a result besides the hyperparameters; JSON-serializable."""
        return dict(self.prepare().fingerprint)

    @property
    def context(self) -> dict[str, Any]:
        """What decides which values are good, as `LLMBOSampler(context=...)` takes it.

        The method "lora", the parameters of the base model, and the optimizer steps of a trial
        with the default batch size and epochs. `LLMBOSampler` reads it from the study.
        """
        with self.exclusive() as prepared:
            usual = prepared.space.default_recipe or prepared.space.defaults
            steps = step_count(len(prepared.train), usual.batch_size, usual.epochs)
            about = {"method": "lora", "parameters": prepared.model.num_parameters()}
            return about | ({"steps": steps} if steps else {})

    def promotable(
        self, folder: Path, tell: Callable[[str], None] | None = None
    ) -> PromotableLoRA:
        """The objective as `promote` needs it; calls `prepare`.

        Args:
            folder: keeps the fits, so that an interrupted call resumes.
            tell: called before each training with a description of it.

        Raises:
            InputError: as `prepare`; if there are several metrics, or the one says nothing of the
                trained model.
        """
        return PromotableLoRA(self.prepare(), folder, tell)

    def check_study(self, study: optuna.Study) -> None:
        """Check that a study's results are comparable with this objective's, and mark it.

        Raises:
            InputError: if the study's directions are not those of the metrics, or it holds the
                results of an objective with other data, model or settings.
        """
        goals, ours = self.goals, self.fingerprint
        claim(study, goals, ours, lambda: self.context, only_names=ONLY_NAMES)

    def __call__(self, trial: BaseTrial) -> float | tuple[float, ...]:
        """Run one trial.

        Returns:
            The validation loss after training, nats per response token, or the value of `metric`;
            one value per metric if there are several.

        Raises:
            InputError: for a mistake in the inputs, see `prepare` and `check_study`.
            optuna.TrialPruned: if the pruner says so, or the configuration cannot be run: it
                diverges, lacks memory with one example at once, or takes longer than
                `trial_timeout`.
            SearchTimedOut: if `limits.ends_at` has come.
            TrialCrashed: for any other error; `study.optimize(..., catch=(TrialCrashed,))` goes
                on with the next trial.
        """
        with self._lock:
            prepared = self.prepare()
            self._check_study_once(trial)
            recipe = prepared.space.suggest(trial)
            run = Run(trial, recipe, prepared, self.options, self.progress, self.limits)
            values = run()
            run.complete(values[0])
            return values[0] if len(values) == 1 else values

    def _check_study_once(self, trial: BaseTrial) -> None:
        study = getattr(trial, "study", None)  # a FixedTrial has none
        if study is not None and study not in self._checked_studies:
            self.check_study(study)
            self._checked_studies.add(study)
