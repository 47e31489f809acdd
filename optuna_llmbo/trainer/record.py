"""What a trial of a trainer records besides the facts of its run."""

from __future__ import annotations

from typing import Any

from optuna.trial import BaseTrial

from optuna_llmbo.lora.adapter import START_AT_THE_WEIGHTS
from optuna_llmbo.lora.checkpoint import ADAPTER as ADAPTER_FOLDER
from optuna_llmbo.lora.checkpoint import TrialFolders
from optuna_llmbo.lora.checkpoint import writing
from optuna_llmbo.lora.record import best_trials
from optuna_llmbo.lora.record import running_trials
from optuna_llmbo.study.outcome import default_trial
from optuna_llmbo.study.trial_attributes import ADAPTER
from optuna_llmbo.study.trial_attributes import BASE_LOSS
from optuna_llmbo.study.trial_attributes import DEFAULT_LOSS
from optuna_llmbo.study.trial_attributes import FRACTION
from optuna_llmbo.study.trial_attributes import GAIN_OVER_BASE
from optuna_llmbo.study.trial_attributes import GAIN_OVER_DEFAULT
from optuna_llmbo.study.trial_attributes import IS_DEFAULT
from optuna_llmbo.study.trial_attributes import PROBLEMS
from optuna_llmbo.trainer.job import TrainerJob
from optuna_llmbo.trainer.options import TrainerOptions
from optuna_llmbo.trainer.prepare import PreparedTrainer
from optuna_llmbo.trainer.save import save_trained


def start(
    trial: BaseTrial, prepared: PreparedTrainer, *, is_default: bool, base_value: float | None
) -> None:
    """Record what a trial is."""
    trial.set_user_attr(IS_DEFAULT, is_default)
    trial.set_user_attr(FRACTION, prepared.rows.fraction)
    if base_value is not None:
        trial.set_user_attr(BASE_LOSS, base_value)


def gains(trial: BaseTrial, value: float, base_value: float | None) -> None:
    """Record the gains of a complete trial over the base model and over the default."""
    if base_value is not None:
        trial.set_user_attr(GAIN_OVER_BASE, base_value - value)
    default = value if trial.user_attrs[IS_DEFAULT] else _default_value(trial)
    if default is not None:
        trial.set_user_attr(DEFAULT_LOSS, default)
        trial.set_user_attr(GAIN_OVER_DEFAULT, default - value)


def keep_adapter(
    trial: BaseTrial,
    trainer: Any,
    job: TrainerJob,
    prepared: PreparedTrainer,
    options: TrainerOptions,
    value: float,
) -> None:
    """Save the trained model if it is among the best ones, and remove those that it surpasses."""
    assert options.folder is not None
    folders = TrialFolders(options.folder)
    larger = options.direction == "maximize"
    best = best_trials(trial, value, options.keep, larger_is_better=larger)
    if trial.number in best:
        if job.recipe.variant in START_AT_THE_WEIGHTS:
            problem = f"The adapter is not kept: variant={job.recipe.variant!r} changes the base."
            trial.set_user_attr(PROBLEMS, [problem])
        else:
            place = folders.of(trial.number) / ADAPTER_FOLDER
            with writing(place):
                save_trained(trainer, place, prepared.base_card)
            trial.set_user_attr(ADAPTER, str(place))
    folders.keep([*best, *running_trials(trial)])


def _default_value(trial: BaseTrial) -> float | None:
    study = getattr(trial, "study", None)
    control = None if study is None else default_trial(study.get_trials(deepcopy=False))
    return None if control is None else control.value
