"""Records who chose a trial, in user attributes that the dashboard shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import Literal

from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_llmbo.study import compat
from optuna_llmbo.study.trial_attributes import ACQUISITION
from optuna_llmbo.study.trial_attributes import CHOSEN_BY
from optuna_llmbo.study.trial_attributes import EXPECTED_MEAN
from optuna_llmbo.study.trial_attributes import EXPECTED_STANDARD_DEVIATION
from optuna_llmbo.study.trial_attributes import SAMPLER_PREFIX
from optuna_llmbo.study.trial_attributes import SUGGESTION_SECONDS
from optuna_llmbo.study.trial_attributes import TEXT
from optuna_llmbo.study.trial_attributes import TRUST
from optuna_llmbo.suggestion.decision import Decision


ChosenBy = Literal["enqueued", "default", "start-up", "model", "fallback", "independent"]
"""Who chose a trial. In order: the user; the packs, other studies or the middle of the ranges; the
quasi-random start; the model; the numeric model, as the one with text could not be fitted; nobody:
its parameters are drawn independently."""


def record(
    study: Study,
    trial: FrozenTrial,
    chosen_by: ChosenBy,
    *,
    seconds: float,
    decision: Decision | None = None,
    signs: Sequence[float] = (),
    text: str | None = None,
) -> None:
    """Record how a running trial was chosen.

    Args:
        study: the study.
        trial: the trial.
        chosen_by: who chose.
        seconds: how long the suggestion took.
        decision: what the model said, if it was asked.
        signs: one for each objective, -1 where the study minimizes.
        text: the language model and a hash of its prompt, if it read.
    """
    attributes: dict[str, Any] = {CHOSEN_BY: chosen_by, SUGGESTION_SECONDS: round(seconds, 3)}
    if decision is not None:
        means = [sign * mean for sign, mean in zip(signs, decision.means, strict=True)]
        attributes |= {
            EXPECTED_MEAN: _plain(means),
            EXPECTED_STANDARD_DEVIATION: _plain(decision.standard_deviations),
            ACQUISITION: decision.score,
        }
        if decision.trust is not None:
            attributes[TRUST] = round(decision.trust, 3)
    if text is not None:
        attributes[TEXT] = text
    compat.set_user_attributes(study, trial, attributes)


def is_recorded(trial: FrozenTrial) -> bool:
    """Whether a trial already says who chose it."""
    return trial.user_attrs.get(CHOSEN_BY) is not None


def forget(study: Study, trial: FrozenTrial) -> None:
    """Empty the attributes that a retried trial has inherited from its first attempt."""
    stale = [name for name in trial.user_attrs if name.startswith(SAMPLER_PREFIX)]
    compat.set_user_attributes(study, trial, dict.fromkeys(stale))


def _plain(values: Sequence[float]) -> float | list[float]:
    return values[0] if len(values) == 1 else list(values)
