"""The objective of a study that trains with the user's own trainer."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
from dataclasses import dataclass
import os
from pathlib import Path
import shutil
import tempfile
import threading
from typing import Any
from typing import TYPE_CHECKING
import weakref

import optuna
from optuna.trial import BaseTrial
from optuna.trial import FrozenTrial
import torch
from transformers import set_seed

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import distributed
from optuna_llmbo.lora.memory import release
from optuna_llmbo.lora.prepare import ONLY_NAMES
from optuna_llmbo.lora.space import Space
from optuna_llmbo.study import marks
from optuna_llmbo.study.claim import claim
from optuna_llmbo.study.outcome import TrialCrashed
from optuna_llmbo.study.progress import Goal
from optuna_llmbo.study.time_limits import SearchTimedOut
from optuna_llmbo.study.time_limits import TimeLimits
from optuna_llmbo.study.training_progress import TrainingProgress
from optuna_llmbo.study.trial_attributes import INTERRUPTED
from optuna_llmbo.trainer import record
from optuna_llmbo.trainer.callback import TrialCallback
from optuna_llmbo.trainer.configuration import Configuration
from optuna_llmbo.trainer.configuration import configuration_of
from optuna_llmbo.trainer.job import TrainerJob
from optuna_llmbo.trainer.options import MakeTrainer
from optuna_llmbo.trainer.options import TrainerOptions
from optuna_llmbo.trainer.prepare import prepare
from optuna_llmbo.trainer.prepare import PreparedTrainer
from optuna_llmbo.trainer.promotable import PromotableTrainer
from optuna_llmbo.trainer.random_state import random_state_kept
from optuna_llmbo.trainer.rows import no_bars
from optuna_llmbo.trainer.rows import RowSource


if TYPE_CHECKING:
    import datasets


_OF_A_PROCESS = ("limits", "_lock", "_prepared", "_base_value", "_checked_studies")


@dataclass(frozen=True)
class Trained:
    """A training that has ended, while its model is still there."""

    trainer: Any
    """The user's Trainer."""
    job: TrainerJob
    value: float
    """The metric of the last evaluation."""
    metrics: Mapping[str, Any]
    """All that the last evaluation returned."""


class TrainerObjective:
    """Train with a Trainer of your own and return what it measures.

    For the Trainer of `transformers`, TRL's SFTTrainer and DPOTrainer, and every other one that
    builds on it. A trial

    1. gets its hyperparameters from the study's sampler, checked as a `LoRARecipe` and `extra`,
    2. calls `make_trainer(job)`, which returns a Trainer for the job's recipe and data,
    3. trains; the model is evaluated at `reports` evenly spaced points, and each `metric` is
       reported at the percentage of the training done (25, 50, 75, 100),
    4. returns the last one.

    How a trial is reported and ends is described at `TrialCallback`, which the objective adds to
    the Trainer. The data are divided as `LoRAObjective` does: a proxy, which is the same in every
    trial, and validation and test rows that no trial trains on; a row is its content. A base model
    that is shared (`model=`) is loaded once; after each trial, however it ended, adapters and all
    other traces of the training are removed from it. Trials in several threads train one after the
    other. The process's random state is left as it was.

    The default configuration (`default_params`) is the control, which is never pruned.

    Each trial records as user attributes: `recipe` and `extra_hyperparameters` (all that it is
    trained with), the facts that `TrialCallback` documents, `fraction` (the proxy's share of the
    training rows), `is_default`, `base_loss`, and for a metric to minimize `gain_over_base` and
    `gain_over_default`. An error of the trainer fails the trial with its `traceback`.

    The arguments are the fields of `TrainerOptions`, which documents each one and is kept as
    `options`; and `progress`, a function called after every step.
    """

    def __init__(
        self,
        make_trainer: MakeTrainer,
        space: Space | None = None,
        *,
        train: RowSource,
        validation: RowSource | float | None = None,
        test: RowSource | float | None = None,
        proxy: float = TrainerOptions.proxy,
        proxy_by: str = TrainerOptions.proxy_by,
        defaults: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        model: str | os.PathLike[str] | Callable[[], tuple[Any, Any]] | None = None,
        metric: str = TrainerOptions.metric,
        direction: str = TrainerOptions.direction,
        method: str | None = TrainerOptions.method,
        reports: int = TrainerOptions.reports,
        measure_base: bool = TrainerOptions.measure_base,
        at_once: int = TrainerOptions.at_once,
        folder: str | os.PathLike[str] | None = None,
        keep: int = TrainerOptions.keep,
        seed: int = TrainerOptions.seed,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        quantization: str | None = None,
        settings: Mapping[str, Any] | None = None,
        trial_timeout: float | None = None,
        progress: Callable[[TrainingProgress], None] | None = None,
    ) -> None:
        self.options = TrainerOptions(
            make_trainer=make_trainer,
            train=train,
            space=space,
            defaults=dict(defaults or {}),
            extra=dict(extra or {}),
            validation=validation,
            test=test,
            proxy=proxy,
            proxy_by=proxy_by,
            model=model,
            metric=metric,
            direction=direction,
            method=method,
            reports=reports,
            measure_base=measure_base,
            at_once=at_once,
            folder=folder,
            keep=keep,
            seed=seed,
            device=device,
            dtype=dtype,
            quantization=quantization,
            settings=dict(settings or {}),
            trial_timeout=trial_timeout,
        )
        self.progress = progress
        self._start()

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: the options, but no model, data or lock."""
        return {name: value for name, value in vars(self).items() if name not in _OF_A_PROCESS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As a new objective with these options."""
        vars(self).update(state)
        self._start()

    def _start(self) -> None:
        self.limits = TimeLimits(self.options.trial_timeout)
        self._lock = threading.RLock()
        self._prepared: PreparedTrainer | None = None
        self._base_value: float | None = None
        self._checked_studies: weakref.WeakSet[optuna.Study] = weakref.WeakSet()

    def prepare(self) -> PreparedTrainer:
        """Load the data and the base model and check all inputs; the first call does the work.

        With `measure_base`, your function is called with the default configuration, and the model
        is evaluated.

        Raises:
            InputError: for every mistake in the arguments, the data or the search space.
        """
        with self._lock:
            if self._prepared is None:
                prepared = self._load()
                if self.options.measure_base:
                    self._base_value = self._measured_base(prepared)
                self._prepared = prepared
            return self._prepared

    @property
    def goals(self) -> tuple[Goal, ...]:
        """The metric."""
        return (Goal(self.options.metric, self.options.direction),)

    @property
    def default_params(self) -> dict[str, Any] | None:
        """The default configuration in the search space's names, for `study.enqueue_trial`; None
        if the space is a function whose parameters cannot express it."""
        params = self.prepare().space.default_params
        return None if params is None else dict(params)

    @property
    def base_loss(self) -> float | None:
        """The metric before any training; None without `measure_base`."""
        self.prepare()
        return self._base_value

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What is known to determine a result besides the hyperparameters; JSON-serializable."""
        return dict(self.prepare().fingerprint)

    @property
    def context(self) -> dict[str, Any]:
        """What decides which values are good, as `LLMBOSampler(context=...)` takes it."""
        return dict(self.prepare().context)

    def check_study(self, study: optuna.Study) -> None:
        """Check that a study's results are comparable with this objective's, and mark it.

        Raises:
            InputError: if the study's direction is not the metric's, or it holds the results of an
                objective with other data, model or settings.
        """
        claim(study, self.goals, self.fingerprint, lambda: self.context, only_names=ONLY_NAMES)

    def configuration_of(self, trial: FrozenTrial) -> Configuration:
        """All hyperparameters that a trial was trained with, whatever the space is now.

        Raises:
            InputError: if the trial does not say it.
        """
        return configuration_of(trial)

    def __call__(self, trial: BaseTrial) -> float:
        """Run one trial.

        Returns:
            The metric after training.

        Raises:
            InputError: for a mistake in the inputs.
            optuna.TrialPruned: if the pruner says so, or the configuration cannot be trained: it
                diverges, lacks memory, or takes longer than `trial_timeout`.
            SearchTimedOut: if `limits.ends_at` has come.
            TrialCrashed: for any other error; `study.optimize(..., catch=(TrialCrashed,))` goes on
                with the next trial.
        """
        with self._lock:
            prepared = self.prepare()
            self._check_study_once(trial)
            configuration = prepared.space.suggest(trial)
            configuration.record(trial)
            is_default = configuration == prepared.space.default
            record.start(trial, prepared, is_default=is_default, base_value=self._base_value)
            callback = TrialCallback(
                trial,
                self.options.metric,
                reports=self.options.reports,
                prune=not is_default,
                progress=self.progress,
                limits=self.limits,
            )
            with _ends_as_a_trial(trial):
                return self._run(trial, configuration, callback)

    @contextlib.contextmanager
    def trained(
        self,
        configuration: Configuration,
        *,
        train: datasets.Dataset | None = None,
        validation: datasets.Dataset | None = None,
        seed: int | None = None,
        callback: TrialCallback | None = None,
        callbacks: Sequence[Any] = (),
    ) -> Iterator[Trained]:
        """Context of a finished training: its trainer with the trained model, and the metric.

        Args:
            configuration: what to train with.
            train: None: the proxy.
            validation: what to evaluate on; None: the validation rows.
            seed: None: the objective's.
            callback: of the trial that is running; None: there is none, and the model is evaluated
                at the end only.
            callbacks: further callbacks of the Trainer.

        Raises:
            InputError: for a mistake in the inputs, or if your function makes no Trainer.
            optuna.TrialPruned: if the configuration cannot be trained.
        """
        with self._lock, self._job(configuration, train, validation, seed, callback) as job:
            watched = callback or _alone(self.options.metric)
            with watched:
                trainer = self._trainer(self.options.make_trainer, job)
                for one in (*callbacks, watched):
                    trainer.add_callback(one)
                trainer.train()
            yield Trained(trainer, job, watched.value, watched.metrics)

    @contextlib.contextmanager
    def untrained(
        self,
        configuration: Configuration,
        *,
        train: datasets.Dataset | None = None,
        validation: datasets.Dataset | None = None,
        seed: int | None = None,
    ) -> Iterator[Any]:
        """Context of a trainer that has not trained, as `trained` begins with; arguments as there.

        Raises:
            InputError: for a mistake in the inputs, or if your function makes no Trainer.
        """
        with self._lock, self._job(configuration, train, validation, seed, None) as job:
            yield self._trainer(self.options.make_trainer, job)

    def promotable(
        self, folder: Path, tell: Callable[[str], None] | None = None
    ) -> PromotableTrainer:
        """The objective as `promote` needs it; calls `prepare`.

        Args:
            folder: keeps the fits, so that an interrupted call resumes.
            tell: called before each training with a description of it.

        Raises:
            InputError: as `prepare`.
        """
        return PromotableTrainer(self, folder, tell)

    def score(
        self,
        configuration: Configuration,
        *,
        on: datasets.Dataset | None = None,
        train: datasets.Dataset | None = None,
        seed: int | None = None,
    ) -> float:
        """Train a configuration outside of a study, and return its metric.

        Args:
            configuration: what to train with.
            on: rows to evaluate on, at the end; None: the test rows, which no trial has read.
            train: None: the proxy.
            seed: None: the objective's.

        Raises:
            InputError: if there are no test rows.
            optuna.TrialPruned: if the configuration cannot be trained.
        """
        rows = self.prepare().rows
        on = rows.test if on is None else on
        if on is None:
            raise InputError("there are no test rows: give the objective a test=, or name rows.")
        with self.trained(configuration, train=train, validation=on, seed=seed) as trained:
            return trained.value

    def _load(self) -> PreparedTrainer:
        return prepare(self.options)

    def _run(
        self, trial: BaseTrial, configuration: Configuration, callback: TrialCallback
    ) -> float:
        options, prepared = self.options, self.prepare()
        with self.trained(configuration, callback=callback) as trained:
            value = trained.value
            if options.folder is not None and options.keep and distributed.rank() == 0:
                record.keep_adapter(trial, trained.trainer, trained.job, prepared, options, value)
        if options.direction == "minimize":
            record.gains(trial, value, self._base_value)
        return value

    def _measured_base(self, prepared: PreparedTrainer) -> float:
        """The metric of the untrained model, with the default configuration."""
        name = self.options.metric
        usual = prepared.space.default or prepared.space.defaults
        with self._job(usual, None, None, None, None, prepared) as job:
            metrics = self._trainer(self.options.make_trainer, job).evaluate()
        if name not in metrics:
            raise InputError(
                f"metric={name!r}: the evaluation returned no such metric. It returned "
                f"{', '.join(sorted(metrics))}."
            )
        return float(metrics[name])

    @contextlib.contextmanager
    def _job(
        self,
        configuration: Configuration,
        train: datasets.Dataset | None,
        validation: datasets.Dataset | None,
        seed: int | None,
        callback: TrialCallback | None,
        prepared: PreparedTrainer | None = None,
    ) -> Iterator[TrainerJob]:
        """The job of a training; afterwards the base is what it was, and the folder is gone."""
        prepared = prepared or self.prepare()
        rows, options = prepared.rows, self.options
        number = options.seed if seed is None else seed
        folder = tempfile.mkdtemp(prefix="run-", dir=_existing(options.folder))
        try:
            with random_state_kept(), no_bars(), prepared.base.lent() as loan:
                set_seed(number)  # adapters are drawn before the Trainer sets its seed
                yield TrainerJob(
                    recipe=configuration.recipe,
                    extra=dict(configuration.extra),
                    train=rows.train if train is None else train,
                    validation=rows.validation if validation is None else validation,
                    seed=number,
                    folder=folder,
                    trial=None if callback is None else callback.trial,
                    loan=loan,
                    at_once=options.at_once,
                )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            release()

    def _trainer(self, make_trainer: MakeTrainer, job: TrainerJob) -> Any:
        """What the user's function makes, checked.

        Raises:
            InputError: if it is no Trainer, evaluates nothing, or trains on several devices.
        """
        from transformers import PrinterCallback
        from transformers import ProgressCallback
        from transformers import Trainer

        trainer = make_trainer(job)
        if not isinstance(trainer, Trainer):
            raise InputError(
                f"make_trainer returned {trainer!r:.80}: expected a Trainer of transformers, or "
                "one that builds on it."
            )
        if trainer.eval_dataset is None:
            raise InputError(
                "the trainer has nothing to evaluate: give it the job's validation rows as "
                "eval_dataset."
            )
        if trainer.args.world_size > 1 or trainer.args.n_gpu > 1:
            n = max(trainer.args.world_size, trainer.args.n_gpu)
            raise InputError(
                f"the Trainer trains on {n} devices at once, so that a batch would have {n} times "
                "the examples of the recipe's: make one GPU visible (CUDA_VISIBLE_DEVICES=0), and "
                "start a worker for each."
            )
        for kind in (PrinterCallback, ProgressCallback):  # the search shows its own progress
            trainer.remove_callback(kind)
        return trainer

    def _check_study_once(self, trial: BaseTrial) -> None:
        study = getattr(trial, "study", None)  # a FixedTrial has none
        if study is not None and study not in self._checked_studies:
            self.check_study(study)
            self._checked_studies.add(study)


@contextlib.contextmanager
def _ends_as_a_trial(trial: BaseTrial) -> Iterator[None]:
    """Turn errors into the ends of a trial."""
    try:
        yield
    except KeyboardInterrupt:
        trial.set_user_attr(INTERRUPTED, True)
        raise
    except (optuna.TrialPruned, InputError, SearchTimedOut):
        raise
    except Exception as error:
        marks.failed(trial, error)
        raise TrialCrashed(f"{type(error).__name__}: {error}") from error


def _alone(metric: str) -> TrialCallback:
    """A callback for a training outside of a study, which evaluates at the end."""
    return TrialCallback(optuna.trial.FixedTrial({}), metric, reports=1, prune=False)


def _existing(folder: str | os.PathLike[str] | None) -> Path | None:
    if folder is None:
        return None
    path = Path(folder).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    return path
