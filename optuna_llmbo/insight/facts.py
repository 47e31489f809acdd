"""A study's facts, without a model: trials, counts, ranges, surprises, versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import platform
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from optuna_llmbo._util.versions import version_of
from optuna_llmbo.space.prompt import format_value
from optuna_llmbo.study import compat
from optuna_llmbo.study.outcome import count
from optuna_llmbo.study.outcome import default_trial
from optuna_llmbo.study.outcome import Outcome
from optuna_llmbo.study.trial_attributes import CONTEXT
from optuna_llmbo.study.trial_facts import trial_facts
from optuna_llmbo.study.trial_facts import TrialFacts


PACKAGES = ("optuna-llmbo", "optuna", "torch", "transformers", "peft", "gpytorch", "botorch")
"""Packages whose versions are recorded, besides Python's."""

SURPRISING = 3.0
"""Standard deviations from what was expected that make a result a surprise."""


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
    """The default configuration's trial; None if it has not completed."""
    ranges: dict[str, str]
    """Range of each hyperparameter in the latest trial that has it."""
    context: dict[str, Any]
    """Method, parameters of the model and steps, as `LoRAObjective` writes them; else empty."""
    versions: dict[str, str]
    """Exact versions of the installed packages."""

    @property
    def counts(self) -> dict[Outcome, int]:
        """Number of trials by outcome."""
        return count(facts.outcome for facts in self.trials)

    @property
    def gain(self) -> float | None:
        """How much better the best trial is than the default; None with several objectives."""
        if len(self.objectives) > 1 or not self.best or self.default is None:
            return None
        if self.default.outcome != "complete":  # it breaks a constraint
            return None
        difference = self.best[0].values[0] - self.default.values[0]
        return difference if self.objectives[0][1] == "maximize" else -difference

    @property
    def surprises(self) -> tuple[TrialFacts, ...]:
        """Complete trials more than `SURPRISING` standard deviations off, the worst first."""
        far = [facts for facts in self.trials if facts.surprise > SURPRISING]
        return tuple(sorted(far, key=lambda facts: -facts.surprise))

    def with_outcome(self, outcome: Outcome) -> tuple[TrialFacts, ...]:
        """The trials with an outcome."""
        return tuple(facts for facts in self.trials if facts.outcome == outcome)


def study_facts(study: optuna.Study) -> StudyFacts:
    """Read a study of any sampler, with any number of objectives; it may be empty."""
    trials = compat.all_trials(study)
    facts = tuple(map(trial_facts, trials))
    best = {trial.number for trial in _best_trials(study)}
    default = default_trial(trials)
    return StudyFacts(
        name=study.study_name,
        objectives=_objectives(study),
        trials=facts,
        best=tuple(one for one in facts if one.number in best),
        default=next((one for one in facts if one.trial is default), None),
        ranges=_ranges(trials),
        context=study.user_attrs.get(CONTEXT, {}),
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Versions of Python and of `PACKAGES`, as installed here."""
    packages = {package: version_of(package) for package in PACKAGES}
    return {"python": platform.python_version(), **packages}


def params_text(params: Mapping[str, Any]) -> str:
    """Write a configuration in one line."""
    return ", ".join(f"{name} = {format_value(value)}" for name, value in params.items())


def expected_text(facts: TrialFacts) -> str:
    """Write what was expected: "1.234 ± 0.056" for each objective; empty if nothing was."""
    both = zip(facts.expected, facts.standard_deviations, strict=True)
    return ", ".join(f"{mean:.4g} ± {sd:.2g}" for mean, sd in both)


def values_text(values: tuple[float, ...]) -> str:
    """Write the objectives' values in one line."""
    return ", ".join(f"{value:.5g}" for value in values)


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
    """The best feasible trial, or the Pareto front of several objectives."""
    if len(study.directions) > 1:
        return study.best_trials
    try:
        return [study.best_trial]
    except ValueError:  # no complete trial, or no feasible one
        return []


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
