"""What a study says of itself, without a model: trials, counts, ranges, surprises, versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import math
import platform
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_llmbo._util.versions import version_of
from optuna_llmbo.space.prompt import format_value
from optuna_llmbo.study import compat
from optuna_llmbo.study.outcome import count
from optuna_llmbo.study.outcome import Outcome
from optuna_llmbo.study.outcome import outcome_of
from optuna_llmbo.study.outcome import violated
from optuna_llmbo.suggestion.provenance import PREFIX


PACKAGES = ("optuna-llmbo", "optuna", "torch", "transformers", "peft", "gpytorch", "botorch")
"""Whose versions are told, beside Python's."""

SURPRISING = 3.0
"""So many deviations from what was expected make a result a surprise."""


@dataclass(frozen=True)
class TrialFacts:
    """One trial in plain values."""

    trial: FrozenTrial
    outcome: Outcome
    reason: str
    """Why it was pruned, is infeasible or has failed; empty if nothing says so."""
    values: tuple[float, ...]
    """Of the objectives; of a pruned trial what it has reported last; empty if there is none."""
    seconds: float | None
    """From its start to its end."""
    chosen_by: str
    """The sampler's word for who chose it (`provenance.Path`); empty if nothing says so."""
    expected: tuple[float, ...]
    """What the model expected of it when it chose it; empty where no model did."""
    deviations: tuple[float, ...]
    """How sure the model was, one for each of `expected`."""

    @property
    def number(self) -> int:
        return self.trial.number

    @property
    def surprise(self) -> float:
        """How many deviations the result is from what was expected, of the objective of which it
        is furthest; 0 where nothing was expected or the trial is not complete."""
        if self.outcome != "complete":
            return 0.0
        both = zip(self.values, self.expected, self.deviations, strict=False)
        return max((abs(value - mean) / dev for value, mean, dev in both if dev > 0), default=0.0)


@dataclass(frozen=True)
class StudyFacts:
    """A study in plain values."""

    name: str
    objectives: tuple[tuple[str, str], ...]
    """Name and direction ("minimize") of each."""
    trials: tuple[TrialFacts, ...]
    best: tuple[TrialFacts, ...]
    """The best trial, or the Pareto front; empty if no trial is complete and feasible."""
    default: TrialFacts | None
    """The first complete trial whose user attribute `is_default` is set; None if there is none."""
    ranges: dict[str, str]
    """By hyperparameter, of the latest trial that has it."""
    versions: dict[str, str]
    """Of the packages that are installed here, exactly."""

    @property
    def counts(self) -> dict[Outcome, int]:
        """How many trials stand how."""
        return count(facts.outcome for facts in self.trials)

    @property
    def gain(self) -> float | None:
        """How much better the best trial is than the default; None with several objectives."""
        if len(self.objectives) > 1 or not self.best or self.default is None:
            return None
        difference = self.best[0].values[0] - self.default.values[0]
        return difference if self.objectives[0][1] == "maximize" else -difference

    @property
    def surprises(self) -> tuple[TrialFacts, ...]:
        """Complete trials that are more than `SURPRISING` deviations off, the worst first."""
        far = [facts for facts in self.trials if facts.surprise > SURPRISING]
        return tuple(sorted(far, key=lambda facts: -facts.surprise))

    def with_outcome(self, outcome: Outcome) -> tuple[TrialFacts, ...]:
        """The trials that ended so."""
        return tuple(facts for facts in self.trials if facts.outcome == outcome)


def study_facts(study: optuna.Study) -> StudyFacts:
    """Read a study of any sampler, with any number of objectives, empty ones too."""
    trials = compat.all_trials(study)
    facts = tuple(map(trial_facts, trials))
    best = {trial.number for trial in _best_trials(study)}
    return StudyFacts(
        name=study.study_name,
        objectives=_objectives(study),
        trials=facts,
        best=tuple(one for one in facts if one.number in best),
        default=_default(facts),
        ranges=_ranges(trials),
        versions=versions(),
    )


def trial_facts(trial: FrozenTrial) -> TrialFacts:
    """One trial in plain values."""
    attributes = trial.user_attrs
    outcome = outcome_of(trial)
    duration = trial.duration
    expected = _numbers(attributes.get(f"{PREFIX}mean"))
    deviations = _numbers(attributes.get(f"{PREFIX}deviation"))
    return TrialFacts(
        trial=trial,
        outcome=outcome,
        reason=_reason(trial, outcome),
        values=_values(trial),
        seconds=None if duration is None else duration.total_seconds(),
        chosen_by=str(attributes.get(f"{PREFIX}path") or ""),
        expected=expected if len(expected) == len(deviations) else (),
        deviations=deviations if len(expected) == len(deviations) else (),
    )


def versions() -> dict[str, str]:
    """Of Python and of `PACKAGES`, as installed here."""
    packages = {package: version_of(package) for package in PACKAGES}
    return {"python": platform.python_version(), **packages}


def params_text(params: Mapping[str, Any]) -> str:
    """A configuration in one line."""
    return ", ".join(f"{name} = {format_value(value)}" for name, value in params.items())


def expected_text(facts: TrialFacts) -> str:
    """What was expected of a trial: "1.234 ± 0.056", an objective each; empty if nothing was."""
    both = zip(facts.expected, facts.deviations, strict=True)
    return ", ".join(f"{mean:.4g} ± {deviation:.2g}" for mean, deviation in both)


def values_text(values: tuple[float, ...]) -> str:
    """Values of the objectives in one line."""
    return ", ".join(f"{value:.5g}" for value in values)


def _reason(trial: FrozenTrial, outcome: Outcome) -> str:
    if outcome == "failed":
        text = str(trial.user_attrs.get("traceback") or "").strip()
        return text.splitlines()[-1] if text else ""
    broken = violated(trial)
    if outcome == "infeasible" and broken:
        told = ", ".join(f"{name} is {value:.4g}" for name, value in broken.items())
        return f"violated constraints (at most 0 is allowed): {told}"
    return str(trial.user_attrs.get("pruned_reason") or "")


def _values(trial: FrozenTrial) -> tuple[float, ...]:
    if trial.values is not None:
        return tuple(trial.values)
    if trial.state == TrialState.PRUNED and trial.last_step is not None:
        last = trial.intermediate_values[trial.last_step]
        return () if math.isnan(last) else (last,)
    return ()


def _numbers(value: Any) -> tuple[float, ...]:
    """Of an attribute that holds a number, a list of them, or something else."""
    several = value if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(one, (int, float)) and math.isfinite(one) for one in several):
        return ()
    return tuple(map(float, several))


def _objectives(study: optuna.Study) -> tuple[tuple[str, str], ...]:
    names = study.metric_names
    if names is None:
        several = len(study.directions) > 1
        names = [f"value {i}" if several else "value" for i in range(len(study.directions))]
    words = {StudyDirection.MAXIMIZE: "maximize"}
    return tuple(
        (n, words.get(d, "minimize")) for n, d in zip(names, study.directions, strict=True)
    )


def _best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """With several objectives the Pareto front; trials that violate constraints are never best."""
    if len(study.directions) > 1:
        return study.best_trials
    try:
        return [study.best_trial]
    except ValueError:  # no complete trial, or no feasible one
        return []


def _default(facts: tuple[TrialFacts, ...]) -> TrialFacts | None:
    """The first complete trial that the objective has marked, as `LoRAObjective` does."""
    marked = (one for one in facts if one.trial.user_attrs.get("is_default"))
    return next((one for one in marked if one.outcome == "complete"), None)


def _ranges(trials: list[FrozenTrial]) -> dict[str, str]:
    latest: dict[str, BaseDistribution] = {}
    for trial in trials:
        latest |= trial.distributions
    return {name: _range(distribution) for name, distribution in latest.items()}


def _range(distribution: Any) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return " | ".join(map(format_value, distribution.choices))
    low, high = format_value(distribution.low), format_value(distribution.high)
    step = distribution.step
    in_steps = f", step {format_value(step)}" if step not in (None, 1) else ""
    return f"{low} to {high}{in_steps}{', log scale' if distribution.log else ''}"
