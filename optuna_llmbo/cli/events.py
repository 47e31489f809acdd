"""Events of `--json`, one line each; docs/lora.md describes the fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial

from optuna_llmbo.study.outcome import default_trial
from optuna_llmbo.study.progress import Goal
from optuna_llmbo.study.progress import progress_of
from optuna_llmbo.study.progress import seconds_of
from optuna_llmbo.study.searched import Searched
from optuna_llmbo.study.trial_attributes import CONTEXT
from optuna_llmbo.study.trial_attributes import TRIAL_FOLDER
from optuna_llmbo.study.trial_facts import trial_facts
from optuna_llmbo.study.trust import trust_course


if TYPE_CHECKING:
    from optuna_llmbo.cli.budget import Budget
    from optuna_llmbo.cli.budget import Estimate
    from optuna_llmbo.lora.proxy_agreement import ProxyCheck
    from optuna_llmbo.promotion import Promotion


def start(study: optuna.Study, objective: Searched, budget: Budget) -> dict[str, Any]:
    """A search starts or resumes."""
    goals = objective.goals
    return {
        "study": study.study_name,
        "metrics": [{"name": goal.name, "direction": goal.direction} for goal in goals],
        "finished": progress_of(study).n_finished,
        "trials": budget.n_trials,
        "timeout": budget.seconds,
        "stops_at_timeout": budget.stops,
        "trial_timeout": objective.limits.trial_seconds,
        "base_loss": objective.base_loss,
        "context": study.user_attrs.get(CONTEXT),
    }


def estimate(estimate: Estimate) -> dict[str, Any]:
    """The first trial of a search is complete."""
    return {
        "trial_seconds": estimate.trial_seconds,
        "trials": estimate.n_trials,
        "seconds": estimate.seconds,
        "fitting": estimate.n_fitting,
    }


def trial(
    study: optuna.Study, trial: FrozenTrial, goals: Sequence[Goal], n_trials: int
) -> dict[str, Any]:
    """A trial has ended."""
    now = progress_of(study)
    return {
        **_facts(trial, goals),
        "reports": trial.intermediate_values,
        "reason": trial_facts(trial).reason or None,
        **({"folder": trial.user_attrs[TRIAL_FOLDER]} if TRIAL_FOLDER in trial.user_attrs else {}),
        "finished": now.n_finished,
        "trials": n_trials,
        "best": [one.number for one in now.best],
    }


def summary(
    study: optuna.Study, goals: Sequence[Goal], base_loss: float | None, *, ended: str
) -> dict[str, Any]:
    """A search has ended."""
    trials = study.get_trials(deepcopy=False)
    now, default = progress_of(study), default_trial(trials)
    course = trust_course([trial_facts(trial) for trial in trials])
    return {
        "study": study.study_name,
        "interrupted": ended == "interrupted",
        "ended": ended,
        "counts": now.counts,
        "base_loss": base_loss,
        "default": None if default is None else _facts(default, goals),
        "best": [_facts(one, goals) for one in now.best],
        "trust": None if course is None else course.latest,
        "overruled_from": None if course is None else course.overruled_from,
    }


def _facts(trial: FrozenTrial, goals: Sequence[Goal]) -> dict[str, Any]:
    facts = trial_facts(trial)
    values = dict(zip([goal.name for goal in goals], facts.values, strict=False))
    return {
        "number": facts.number,
        "outcome": facts.outcome,
        "values": values if facts.outcome == "complete" else None,
        "params": facts.params,
        "is_default": facts.is_default,
        "seconds": seconds_of(trial),
    }


def checked(check: ProxyCheck) -> dict[str, Any]:
    """A proxy check has ended."""
    return {
        "configurations": len(check.params),
        "live": check.n_live,
        "base_loss": check.base_loss,
        "recommended": check.recommended,
        "fractions": [
            {
                "fraction": one.fraction,
                "examples": one.n_examples,
                "spearman": one.spearman,
                "spearman_live": one.spearman_live,
                "pearson": one.pearson,
                "pearson_live": one.pearson_live,
                "regret": one.regret,
                "seconds": one.seconds,
                "saved": one.saved,
            }
            for one in check.agreements
        ],
    }


def promoted(result: Promotion) -> dict[str, Any]:
    """A promotion has ended."""
    from optuna_llmbo.promotion import merged_facts

    merged = result.merged
    return {
        "metric": {"name": result.goal.name, "direction": result.goal.direction},
        "adapter": str(result.adapter),
        "merged": None
        if merged is None
        else {"folder": str(merged.folder), **merged_facts(merged)},
        "contenders": [
            {
                "trial": one.trial,
                "params": one.params,
                "validation": one.validation,
                "test": one.test,
                "is_default": one is result.default,
                "is_winner": one is result.winner,
            }
            for one in result.contenders
        ],
    }
