"""A study belongs to one objective: its results are compared with no other's."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import optuna

from optuna_llmbo.errors import differences
from optuna_llmbo.errors import InputError
from optuna_llmbo.study.progress import Goal
from optuna_llmbo.study.trial_attributes import CONTEXT
from optuna_llmbo.study.trial_attributes import FINGERPRINT


def claim(
    study: optuna.Study,
    goals: Sequence[Goal],
    fingerprint: Mapping[str, Any],
    context: Callable[[], Mapping[str, Any]],
    *,
    only_names: Collection[str] = (),
) -> None:
    """Check that a study's results are comparable with an objective's, and mark it as its own.

    Args:
        study: the study.
        goals: of the objective.
        fingerprint: everything that determines a result of the objective besides the
            hyperparameters; JSON-serializable.
        context: returns what decides which values are good; called if the study has none yet.
        only_names: entries of the fingerprint that may differ.

    Raises:
        InputError: if the study's directions are not those of the goals, or it holds the results
            of an objective with another fingerprint.
    """
    if [d.name.lower() for d in study.directions] != [goal.direction for goal in goals]:
        aims = ", ".join(f"{goal.name} to {goal.direction}" for goal in goals)
        named = [f'"{goal.direction}"' for goal in goals]
        how = f"directions=[{', '.join(named)}]" if len(named) > 1 else f"direction={named[0]}"
        raise InputError(f"the objective has {aims}: create the study with {how}.")
    there = study.user_attrs.get(FINGERPRINT)
    if there is None:
        study.set_user_attr(FINGERPRINT, dict(fingerprint))
    elif _without(there, only_names) != _without(fingerprint, only_names):
        differ = differences(there, fingerprint, label="now")
        raise InputError(
            f"the study {study.study_name!r} holds results of another objective, which "
            f"differs in {differ}. They cannot be compared: use another study name."
        )
    if CONTEXT not in study.user_attrs:
        study.set_user_attr(CONTEXT, dict(context()))


def _without(fingerprint: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in fingerprint.items() if name not in names}
