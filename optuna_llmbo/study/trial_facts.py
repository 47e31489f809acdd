"""One trial in plain values: how it ended, what came out, who chose it and what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import math
from typing import Any

from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_llmbo.study.outcome import Outcome
from optuna_llmbo.study.outcome import outcome_of
from optuna_llmbo.study.outcome import violated
from optuna_llmbo.study.trial_attributes import CHOSEN_BY
from optuna_llmbo.study.trial_attributes import EXPECTED_MEAN
from optuna_llmbo.study.trial_attributes import EXPECTED_STANDARD_DEVIATION
from optuna_llmbo.study.trial_attributes import FAILED_REASON
from optuna_llmbo.study.trial_attributes import IS_DEFAULT
from optuna_llmbo.study.trial_attributes import PROBLEMS
from optuna_llmbo.study.trial_attributes import PRUNED_REASON
from optuna_llmbo.study.trial_attributes import TRACEBACK
from optuna_llmbo.study.trial_attributes import TRUST


@dataclass(frozen=True)
class TrialFacts:
    """One trial in plain values."""

    trial: FrozenTrial
    outcome: Outcome
    reason: str
    """Why it was pruned, is infeasible or failed; for a complete trial what went wrong without
    ending it. Empty if nothing says so."""
    values: tuple[float, ...]
    """The objectives' values; for a pruned trial its last report; empty if there is none."""
    seconds: float | None
    """From its start to its end."""
    chosen_by: str
    """Who chose it, a word of `provenance.ChosenBy`; empty if nothing says so."""
    expected: tuple[float, ...]
    """What the model expected when it chose the trial; empty where no model did."""
    standard_deviations: tuple[float, ...]
    """How sure the model was, one for each of `expected`."""
    trust: float | None
    """How far it was trusted then that values are better where they were expected before any
    trial, a probability; None where nothing was expected or no model chose."""

    @property
    def number(self) -> int:
        """The trial's number."""
        return self.trial.number

    @property
    def params(self) -> Mapping[str, Any]:
        """The trial's parameters."""
        return self.trial.params

    @property
    def is_default(self) -> bool:
        """Whether the objective marked it as the default configuration."""
        return bool(self.trial.user_attrs.get(IS_DEFAULT))

    @property
    def value(self) -> float | None:
        """The value of a single objective, else the last report; None without either. May be
        infinite."""
        if self.trial.value is not None:
            return self.trial.value
        step = self.trial.last_step
        return None if step is None else self.trial.intermediate_values[step]

    @property
    def surprise(self) -> float:
        """How many standard deviations the result lies from what was expected, for the objective
        where it lies furthest; 0 where nothing was expected or the trial is not complete."""
        if self.outcome != "complete":
            return 0.0
        rows = zip(self.values, self.expected, self.standard_deviations, strict=False)
        return max((abs(value - mean) / sd for value, mean, sd in rows if sd > 0), default=0.0)


def trial_facts(trial: FrozenTrial) -> TrialFacts:
    """Read a trial in any state."""
    outcome = outcome_of(trial)
    expected = _numbers(trial.user_attrs.get(EXPECTED_MEAN))
    standard_deviations = _numbers(trial.user_attrs.get(EXPECTED_STANDARD_DEVIATION))
    both = len(expected) == len(standard_deviations)
    trust = _numbers(trial.user_attrs.get(TRUST))
    return TrialFacts(
        trial=trial,
        outcome=outcome,
        reason=_reason(trial, outcome),
        values=_values(trial),
        seconds=None if trial.duration is None else trial.duration.total_seconds(),
        chosen_by=str(trial.user_attrs.get(CHOSEN_BY) or ""),
        expected=expected if both else (),
        standard_deviations=standard_deviations if both else (),
        trust=trust[0] if len(trust) == 1 else None,
    )


def _reason(trial: FrozenTrial, outcome: Outcome) -> str:
    if outcome == "failed":
        if told := trial.user_attrs.get(FAILED_REASON):
            return str(told)
        text = str(trial.user_attrs.get(TRACEBACK) or "").strip()
        return text.splitlines()[-1] if text else ""
    if outcome == "complete":
        return " ".join(map(str, trial.user_attrs.get(PROBLEMS) or ()))
    broken = violated(trial)
    if outcome == "infeasible" and broken:
        told = ", ".join(f"{name} is {value:.4g}" for name, value in broken.items())
        return f"violated constraints (at most 0 is allowed): {told}"
    return str(trial.user_attrs.get(PRUNED_REASON) or "")


def _values(trial: FrozenTrial) -> tuple[float, ...]:
    if trial.values is not None:
        return tuple(trial.values)
    if trial.state == TrialState.PRUNED and trial.last_step is not None:
        last = trial.intermediate_values[trial.last_step]
        return () if math.isnan(last) else (last,)
    return ()


def _numbers(value: Any) -> tuple[float, ...]:
    """Read an attribute that holds a number or a list of them; empty for anything else."""
    several = value if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(one, (int, float)) and math.isfinite(one) for one in several):
        return ()
    return tuple(map(float, several))
