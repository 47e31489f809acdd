"""Everything the package can say about a study: each part, or why it is missing."""

from __future__ import annotations

from dataclasses import dataclass
import os
from pathlib import Path

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_llmbo.errors import check_type
from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import SurrogateFitError
from optuna_llmbo.insight.belief import Belief
from optuna_llmbo.insight.best_so_far import best_so_far_of
from optuna_llmbo.insight.best_so_far import BestSoFar
from optuna_llmbo.insight.calibration import Calibration
from optuna_llmbo.insight.calibration import calibration_of
from optuna_llmbo.insight.choices import ChoiceMap
from optuna_llmbo.insight.choices import choices_of
from optuna_llmbo.insight.embedding import EmbeddingMap
from optuna_llmbo.insight.embedding import map_of
from optuna_llmbo.insight.importance import Importance
from optuna_llmbo.insight.importance import importance_of
from optuna_llmbo.insight.objective import Objective
from optuna_llmbo.insight.objective import objective_of
from optuna_llmbo.insight.slices import Slices
from optuna_llmbo.insight.slices import slices_of
from optuna_llmbo.insight.trust import Trust
from optuna_llmbo.insight.trust import trust_of
from optuna_llmbo.insight.upcoming import Next
from optuna_llmbo.insight.upcoming import next_of
from optuna_llmbo.lora.proxy_agreement import ProxyCheck
from optuna_llmbo.lora.proxy_agreement import read_check
from optuna_llmbo.sampler import LLMBOSampler
from optuna_llmbo.study import compat
from optuna_llmbo.study.branches import informative
from optuna_llmbo.study.outcome import default_trial
from optuna_llmbo.study.trial_facts import trial_facts
from optuna_llmbo.study.trial_facts import TrialFacts
from optuna_llmbo.suggestion.fitted import FittedModel


FEWEST = 3
"""Observed trials needed before the model is fitted."""

_NO_PROGRESS = "best so far: no trial is complete, feasible and of a finite value."
_NO_CALIBRATION = (
    "calibration: no complete trial says what was expected of it; those that LLMBOSampler's model "
    "chooses do, with provenance=True."
)
_NO_SLICES = "slices: no complete trial is left to recommend and to hold the others at."
_NO_IMPORTANCE = "importance: there are too few observed trials to compare models."


@dataclass(frozen=True)
class Insight:
    """What a study and its model say. A part is None where there is nothing to say."""

    study: str
    """The study's name."""
    objective: Objective | None
    """None for several objectives."""
    trials: tuple[TrialFacts, ...]
    """The trials that have begun, by number."""
    best_so_far: BestSoFar | None = None
    calibration: Calibration | None = None
    map: EmbeddingMap | None = None
    slices: Slices | None = None
    choices: tuple[ChoiceMap, ...] | None = None
    """One for each nominal parameter; empty if there is none."""
    importance: Importance | None = None
    proxy: ProxyCheck | None = None
    next: Next | None = None
    trust: Trust | None = None
    """None where nothing was expected before any trial."""
    reasons: tuple[str, ...] = ()
    """Why parts are missing, a sentence for each."""


@dataclass(frozen=True)
class _Model:
    """The parts that need the fitted model."""

    map: EmbeddingMap | None = None
    slices: Slices | None = None
    choices: tuple[ChoiceMap, ...] | None = None
    importance: Importance | None = None
    next: Next | None = None
    trust: Trust | None = None


def examine(
    study: Study,
    sampler: LLMBOSampler | None = None,
    *,
    proxy_check: str | os.PathLike[str] | None = None,
) -> Insight:
    """Examine a study of any sampler.

    Args:
        study: with one objective; little can be said about several.
        sampler: the sampler whose model is fitted. Default None:
            `LLMBOSampler(seed=0, provenance=False)`.
        proxy_check: the folder that `optuna-llmbo proxy-check` has written, or the
            `proxy-check.json` in it. Default None: no proxy check is shown.

    Raises:
        InputError: if it is no study, or there is no proxy check at `proxy_check`.
    """
    check_type("study", study, Study, "a study of Optuna")
    if sampler is None:
        sampler = LLMBOSampler(seed=0, provenance=False)
    proxy = None if proxy_check is None else read_check(Path(proxy_check))
    found = compat.all_trials(study)
    trials = tuple(trial_facts(t) for t in found if t.state != TrialState.WAITING)
    if len(study.directions) > 1:
        reason = f"the study has {len(study.directions)} objectives: these parts are for one."
        trust = trust_of(trials, None, None)
        return Insight(study.study_name, None, (), proxy=proxy, trust=trust, reasons=(reason,))
    objective = objective_of(study)
    default = default_trial(found)
    best_so_far = best_so_far_of(trials, objective, None if default is None else default.number)
    calibration = calibration_of(found)
    model, why_not = _ask(study, sampler, found, trials, best_so_far, objective)
    reasons = [
        _NO_PROGRESS if best_so_far is None else None,
        _NO_CALIBRATION if calibration is None else None,
        why_not,
        _NO_SLICES if why_not is None and model.slices is None else None,
        _NO_IMPORTANCE if why_not is None and model.importance is None else None,
    ]
    return Insight(
        study=study.study_name,
        objective=objective,
        trials=trials,
        best_so_far=best_so_far,
        calibration=calibration,
        proxy=proxy,
        **vars(model),
        reasons=tuple(reason for reason in reasons if reason is not None),
    )


def _ask(
    study: Study,
    sampler: LLMBOSampler,
    found: list[FrozenTrial],
    trials: tuple[TrialFacts, ...],
    best_so_far: BestSoFar | None,
    objective: Objective,
) -> tuple[_Model, str | None]:
    """The parts that need the model, or why there are none."""
    n = len(informative(found))
    best = best_so_far.best[-1] if best_so_far is not None else None
    nothing = _Model(trust=trust_of(trials, None, best))
    if n < FEWEST:
        return nothing, f"the model needs {FEWEST} observed trials; there are {n}."
    n_missing = sampler.n_startup(study) - n

    def question(model: FittedModel, candidates: np.ndarray) -> _Model:
        belief = Belief(model, objective.sign)
        upcoming = next_of(belief, candidates, trials, best, objective, n_missing)
        belief = belief.over_the_space()
        recommended = belief.recommended(found)
        return _Model(
            map=map_of(belief, trials, upcoming.points, None if best is None else best.number),
            slices=None if recommended is None else slices_of(belief, trials, recommended),
            choices=choices_of(belief, trials, found),
            importance=importance_of(belief),
            next=upcoming,
            trust=trust_of(trials, model, best),
        )

    try:
        return sampler.ask(study, question), None
    except (InputError, SurrogateFitError) as error:
        return nothing, f"the model cannot be fitted: {error}"
