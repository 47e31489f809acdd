"""Where a trial's parameters come from: in its user attributes, which the dashboard shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import Literal

from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_llmbo.study import compat
from optuna_llmbo.suggestion.decide import Decision


ChosenBy = Literal["enqueued", "default", "start-up", "model", "fallback", "independent"]
"""Who chose: the user; the packs, other studies or the middle of the ranges; the quasi-random
start; the model; the numeric model because the other could not be fitted; nobody, at random."""

PREFIX = "llmbo:"


def record(
    study: Study,
    trial: FrozenTrial,
    path: ChosenBy,
    *,
    seconds: float,
    choice: Decision | None = None,
    signs: Sequence[float] = (),
    text: str | None = None,
) -> None:
    """Write down how a running trial was chosen.

    Args:
        study: the study.
        trial: the trial.
        path: who chose.
        seconds: that the suggestion took.
        choice: what the model said, if it was asked.
        signs: of the objectives: -1 where a study minimizes.
        text: the language model and a hash of its prompt, if they were used.
    """
    attributes: dict[str, Any] = {"path": path, "seconds": round(seconds, 3)}
    if choice is not None:
        means = [sign * mean for sign, mean in zip(signs, choice.means, strict=True)]
        attributes |= {
            "mean": _plain(means),
            "deviation": _plain(choice.deviations),
            "acquisition": choice.score,
        }
    if text is not None:
        attributes["text"] = text
    compat.set_user_attributes(study, trial, {PREFIX + k: v for k, v in attributes.items()})


def is_recorded(trial: FrozenTrial) -> bool:
    """Whether it is written down already how a trial was chosen."""
    return trial.user_attrs.get(f"{PREFIX}path") is not None


def forget(study: Study, trial: FrozenTrial) -> None:
    """Empty what a retried trial has inherited from its first attempt."""
    stale = [name for name in trial.user_attrs if name.startswith(PREFIX)]
    compat.set_user_attributes(study, trial, dict.fromkeys(stale))


def _plain(values: Sequence[float]) -> float | list[float]:
    return values[0] if len(values) == 1 else list(values)
