"""What the steps of a study's reports are."""

from __future__ import annotations

from typing import get_args
from typing import Literal

import optuna

from optuna_llmbo.study.trial_attributes import REPORT_AXIS


Axis = Literal["percent", "step", "epoch", "evaluation"]
"""The percentage of the training; the optimizer's step; a hundredth of an epoch; or the number of
the evaluation."""

AXES: tuple[Axis, ...] = get_args(Axis)


def axis_of(study: optuna.Study) -> Axis | None:
    """The axis that a study has noted; None if it has none."""
    axis: Axis | None = study.user_attrs.get(REPORT_AXIS)
    return axis


def said(step: int, axis: Axis) -> str:
    """A reported step in words."""
    if axis == "percent":
        return f"{step}%"
    return f"epoch {step / 100:g}" if axis == "epoch" else f"{axis} {step}"
