"""What a running trial is going to try, published before its objective suggests it.

Other workers read it and try something else; the trial takes its own later parameters from it.
"""

from __future__ import annotations

from collections.abc import Mapping
import json
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_llmbo.space.search_space import Configuration
from optuna_llmbo.study import compat
from optuna_llmbo.study.trial_attributes import PLAN_PREFIX


def publish(
    study: Study,
    trial: FrozenTrial,
    configuration: Configuration,
    distributions: Mapping[str, BaseDistribution],
) -> None:
    """Write the configuration that a running trial is going to try to the storage.

    It carries the trial's number: a retried trial inherits the attributes of the first attempt.
    """
    values = {
        name: distributions[name].to_internal_repr(value) for name, value in configuration.items()
    }
    text = json.dumps({"number": trial.number, "values": values})
    compat.set_system_text(study, trial, PLAN_PREFIX, text)


def forget(study: Study, trial: FrozenTrial) -> None:
    """Empty the plan that a retried trial has inherited from its first attempt."""
    if compat.system_text(trial, PLAN_PREFIX):
        compat.set_system_text(study, trial, PLAN_PREFIX, "")


def is_empty(trial: FrozenTrial) -> bool:
    """Whether a trial has published that nothing could be planned for it."""
    return _published(trial) == {}


def read(trial: FrozenTrial, distributions: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Read the configuration that a trial has published; empty if it has not.

    Args:
        trial: in any state.
        distributions: the parameters to read; others are left out.
    """
    values = _published(trial) or {}
    return {
        name: distribution.to_external_repr(values[name])
        for name, distribution in distributions.items()
        if name in values
    }


def _published(trial: FrozenTrial) -> dict[str, float] | None:
    """Internal representations by name; None if the trial has published nothing itself."""
    text = compat.system_text(trial, PLAN_PREFIX)
    published = json.loads(text) if text else {}
    return published["values"] if published.get("number") == trial.number else None


def intended(trial: FrozenTrial, distributions: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """A trial's parameters, with the rest of its plan as long as it has kept to it.

    A complete trial needed no more than it has; any other may have ended before the rest.
    """
    if trial.state == TrialState.COMPLETE:
        return trial.params
    plan = read(trial, distributions)
    kept = all(value == plan[name] for name, value in trial.params.items() if name in plan)
    return {**plan, **trial.params} if kept else trial.params
