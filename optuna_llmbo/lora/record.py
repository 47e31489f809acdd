"""What a trial records: its cost, its gains, and which trials are the best ones so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.trial import BaseTrial
from optuna.trial import TrialState

from optuna_llmbo.lora.prepare import Prepared
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.recorded import control_of
from optuna_llmbo.lora.train import step_count
from optuna_llmbo.study import compat
from optuna_llmbo.study.outcome import complete
from optuna_llmbo.study.outcome import violated
from optuna_llmbo.study.trial_attributes import BASE_LOSS
from optuna_llmbo.study.trial_attributes import DEFAULT_LOSS
from optuna_llmbo.study.trial_attributes import DROPPED_EXAMPLES
from optuna_llmbo.study.trial_attributes import EXAMPLES
from optuna_llmbo.study.trial_attributes import FRACTION
from optuna_llmbo.study.trial_attributes import GAIN_OVER_BASE
from optuna_llmbo.study.trial_attributes import GAIN_OVER_DEFAULT
from optuna_llmbo.study.trial_attributes import IS_DEFAULT


def record_cost(
    trial: BaseTrial, prepared: Prepared, recipe: LoRARecipe, spent: Mapping[str, Any]
) -> None:
    """Record what a trial spent, and what it trained on."""
    examples = len(prepared.train)
    planned = step_count(examples, recipe.batch_size, recipe.epochs)
    left_over = recipe.epochs * examples - planned * recipe.batch_size
    trained_on = {
        EXAMPLES: examples,
        FRACTION: prepared.fraction,
        DROPPED_EXAMPLES: left_over,
        BASE_LOSS: prepared.base_loss,
    }
    for name, value in {**spent, **trained_on}.items():
        trial.set_user_attr(name, value)


def record_gains(trial: BaseTrial, loss: float, prepared: Prepared) -> None:
    """Record the gains of a complete trial over the base model and over the default."""
    trial.set_user_attr(GAIN_OVER_BASE, prepared.base_loss - loss)
    default_loss = loss if trial.user_attrs[IS_DEFAULT] else _default_loss(trial, prepared)
    if default_loss is not None:
        trial.set_user_attr(DEFAULT_LOSS, default_loss)
        trial.set_user_attr(GAIN_OVER_DEFAULT, default_loss - loss)


def best_trials(
    trial: BaseTrial, value: float, n: int, *, larger_is_better: bool = False
) -> list[int]:
    """The numbers of a study's n best complete trials by their first value, this one among them.

    Trials that break a constraint are left out. In a study with constraints that evaluates this
    trial's only after it has ended, this trial comes on top of the n best of the others.
    """
    study = getattr(trial, "study", None)
    trials = study.get_trials(deepcopy=False) if study is not None else []
    sign = -1.0 if larger_is_better else 1.0
    ranked = [(sign * t.values[0], t.number) for t in complete(trials)]
    feasible = {t.number: not violated(t) for t in trials if compat.constraints_of(t)}
    is_unknown = bool(feasible) and trial.number not in feasible
    if not is_unknown and feasible.get(trial.number, True):
        ranked.append((sign * value, trial.number))
    best = [number for _, number in sorted(ranked)[:n]]
    return [*best, trial.number] if is_unknown else best


def running_trials(trial: BaseTrial) -> list[int]:
    """The numbers of a trial's study's running trials: other workers may be saving theirs."""
    study = getattr(trial, "study", None)
    if study is None:
        return []
    others = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [other.number for other in others if other.number != trial.number]


def _default_loss(trial: BaseTrial, prepared: Prepared) -> float | None:
    study = getattr(trial, "study", None)
    if study is None:
        return None
    trials = study.get_trials(deepcopy=False)
    control = control_of(trials, prepared.space.default_recipe, prepared.fingerprint)
    return None if control is None else control.value
